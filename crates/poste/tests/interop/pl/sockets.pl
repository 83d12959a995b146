# sockets.pl send|receive PATH, or HOST PORT: a byte stream, with IO::Socket.
use strict;
use warnings;
use IO::Socket::INET;
use IO::Socket::UNIX;

my ($way, $place, $port) = @ARGV;
my $listens = $way eq "receive";
my $socket = defined $port
    ? IO::Socket::INET->new(
        ($listens ? (Listen => 1, ReuseAddr => 1, LocalAddr => $place, LocalPort => $port)
                  : (PeerAddr => $place, PeerPort => $port)))
    : IO::Socket::UNIX->new($listens ? (Listen => 1, Local => $place) : (Peer => $place));
die "$place: $!" unless $socket;
$socket = $socket->accept if $listens;
my ($from, $to) = $listens ? ($socket, *STDOUT) : (*STDIN, $socket);
binmode $from;
binmode $to;
while (sysread $from, my $piece, 65536) { print $to $piece }
