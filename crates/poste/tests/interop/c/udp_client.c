/* Asks what stands on standard input in one datagram, and prints the answer: udp_client HOST PORT. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char buffer[1024];
    if (argc != 3) return 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    ssize_t n = read(0, buffer, sizeof buffer);
    if (sendto(fd, buffer, n, 0, (struct sockaddr *)&address, sizeof address) < 0) return 1;
    n = recvfrom(fd, buffer, sizeof buffer, 0, NULL, NULL);
    if (n < 0) return 1;
    write(1, buffer, n);
    close(fd);
    return 0;
}
