/* Answers one datagram in capitals, to the name that its sender has: unix_datagram_server PATH. */
#include <ctype.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char buffer[256];
    struct sockaddr_un client, address = {.sun_family = AF_UNIX};
    socklen_t length = sizeof client;
    if (argc != 2) return 2;
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    unlink(argv[1]);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) return 1;
    ssize_t n = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&client, &length);
    for (ssize_t i = 0; i < n; i++) buffer[i] = toupper((unsigned char)buffer[i]);
    if (sendto(fd, buffer, n, 0, (struct sockaddr *)&client, length) < 0) return 1;
    close(fd);
    unlink(argv[1]);
    return 0;
}
