/* Accepts one client, reads once, answers in capitals, closes: tcp_server HOST PORT. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char buffer[1024];
    if (argc != 3) return 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    int opt = 1, server = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &opt, sizeof opt);
    if (bind(server, (struct sockaddr *)&address, sizeof address) < 0 || listen(server, 3) < 0) return 1;
    int client = accept(server, NULL, NULL);
    ssize_t n = read(client, buffer, sizeof buffer);
    printf("Received: %s (%zd bytes)\n", buffer, n);
    for (ssize_t i = 0; i < n; i++) buffer[i] = toupper((unsigned char)buffer[i]);
    send(client, buffer, n, 0);
    close(client);
    close(server);
    return 0;
}
