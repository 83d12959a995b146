/* Accepts one client, reads once, answers in capitals, closes: unix_server PATH [seqpacket]. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char buffer[256];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (argc < 2) return 2;
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    unlink(argv[1]);
    int server = socket(AF_UNIX, argc > 2 ? SOCK_SEQPACKET : SOCK_STREAM, 0);
    if (bind(server, (struct sockaddr *)&address, sizeof address) < 0 || listen(server, 5) < 0) return 1;
    int client = accept(server, NULL, NULL);
    ssize_t n = read(client, buffer, sizeof buffer);
    printf("Received: %s (%zd bytes)\n", buffer, n);
    for (ssize_t i = 0; i < n; i++) buffer[i] = toupper((unsigned char)buffer[i]);
    write(client, buffer, n);
    close(client);
    close(server);
    unlink(argv[1]);
    return 0;
}
