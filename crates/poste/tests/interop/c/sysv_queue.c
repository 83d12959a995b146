/* sysv_queue send|receive KEY: one message of type 1. */
#include <sys/ipc.h>
#include <sys/msg.h>
#include "whole.h"

struct message {
    long type;
    char text[8192];
};

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int id = msgget((key_t)strtoul(argv[2], NULL, 0), 0);
    if (id < 0) fail("msgget");
    static struct message message;
    if (strcmp(argv[1], "send") == 0) {
        size_t size;
        char *body = whole_input(&size);
        message.type = 1;
        memcpy(message.text, body, size);
        if (msgsnd(id, &message, size, 0) < 0) fail("msgsnd");
    } else {
        ssize_t n = msgrcv(id, &message, sizeof message.text, 1, 0);
        if (n < 0) fail("msgrcv");
        write_all(1, message.text, n);
    }
    return 0;
}
