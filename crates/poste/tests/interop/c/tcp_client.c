/* Sends one string and waits for the answer without closing: tcp_client HOST PORT. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char buffer[1024] = {0};
    const char *message = "Hello from the client";
    if (argc != 3) return 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) return 1;
    send(fd, message, strlen(message) + 1, 0);
    ssize_t n = read(fd, buffer, sizeof buffer);
    printf("Server said: %s (%zd bytes)\n", buffer, n);
    close(fd);
    return 0;
}
