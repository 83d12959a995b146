/* A string in a char[256] of which all is sent, what lies behind its NUL too, as many programs do:
 * whole_buffer mq NAME | sysv KEY | dgram PATH | udp HOST PORT. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/socket.h>
#include <sys/un.h>

struct message {
    long mtype;
    char mtext[256];
};

static int by_socket(int family, struct sockaddr *address, socklen_t size, char *text) {
    int s = socket(family, SOCK_DGRAM, 0);
    return sendto(s, text, 256, 0, address, size) < 0;
}

int main(int argc, char **argv) {
    struct message message = {.mtype = 1};
    if (argc < 3) return 2;
    memset(message.mtext, 0xee, sizeof message.mtext);
    strcpy(message.mtext, "Hello from C");
    if (strcmp(argv[1], "mq") == 0) {
        mqd_t queue = mq_open(argv[2], O_WRONLY);
        return mq_send(queue, message.mtext, sizeof message.mtext, 0) < 0;
    }
    if (strcmp(argv[1], "sysv") == 0) {
        int queue = msgget(strtol(argv[2], NULL, 0), 0);
        return msgsnd(queue, &message, sizeof message.mtext, 0) < 0;
    }
    if (strcmp(argv[1], "dgram") == 0) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        strncpy(address.sun_path, argv[2], sizeof address.sun_path - 1);
        return by_socket(AF_UNIX, (struct sockaddr *)&address, sizeof address, message.mtext);
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
    inet_pton(AF_INET, argv[2], &address.sin_addr);
    return by_socket(AF_INET, (struct sockaddr *)&address, sizeof address, message.mtext);
}
