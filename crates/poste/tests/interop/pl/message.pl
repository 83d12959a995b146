# message.pl send|receive KEY: one message of type 1, with IPC::Msg.
use strict;
use warnings;
use IPC::Msg;

my ($way, $key) = @ARGV;
my $queue = IPC::Msg->new(oct $key, 0) or die "msgget: $!";
binmode STDIN;
binmode STDOUT;
if ($way eq "send") {
    local $/;
    my $body = <STDIN>;
    $queue->snd(1, $body // "") or die "msgsnd: $!";
} else {
    defined $queue->rcv(my $body, 8192, 1) or die "msgrcv: $!";
    print $body;
}
