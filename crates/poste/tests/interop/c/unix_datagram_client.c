/* Asks what stands on standard input in one datagram, and prints the answer; the client needs a name
 * of its own for that: unix_datagram_client PATH. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char buffer[256];
    struct sockaddr_un mine = {.sun_family = AF_UNIX}, address = {.sun_family = AF_UNIX};
    if (argc != 2) return 2;
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    snprintf(mine.sun_path, sizeof mine.sun_path, "%s.%ld", argv[1], (long)getpid());
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (bind(fd, (struct sockaddr *)&mine, sizeof mine) < 0) return 1;
    ssize_t n = read(0, buffer, sizeof buffer);
    if (sendto(fd, buffer, n, 0, (struct sockaddr *)&address, sizeof address) < 0) return 1;
    n = recvfrom(fd, buffer, sizeof buffer, 0, NULL, NULL);
    unlink(mine.sun_path);
    if (n < 0) return 1;
    write(1, buffer, n);
    close(fd);
    return 0;
}
