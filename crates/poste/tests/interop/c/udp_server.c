/* Answers one datagram in capitals: udp_server HOST PORT. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char buffer[1024];
    if (argc != 3) return 2;
    struct sockaddr_in client, address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    socklen_t length = sizeof client;
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) return 1;
    ssize_t n = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&client, &length);
    for (ssize_t i = 0; i < n; i++) buffer[i] = toupper((unsigned char)buffer[i]);
    if (sendto(fd, buffer, n, 0, (struct sockaddr *)&client, length) < 0) return 1;
    close(fd);
    return 0;
}
