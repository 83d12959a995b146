/* Key 1234, type 1, 256 bytes: message_1234 send|receive. The whole array is sent. */
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>

struct msg_buffer {
    long msg_type;
    char msg_text[256];
};

int main(int argc, char **argv) {
    struct msg_buffer message = {.msg_type = 1};
    if (argc != 2) return 2;
    int msgid = msgget((key_t)1234, 0666 | IPC_CREAT);
    if (msgid < 0) return 1;
    if (strcmp(argv[1], "send") == 0) {
        strcpy(message.msg_text, "Hello from C");
        if (msgsnd(msgid, &message, sizeof message.msg_text, 0) < 0) return 1;
    } else {
        ssize_t n = msgrcv(msgid, &message, sizeof message.msg_text, 1, 0);
        if (n < 0) return 1;
        printf("Received: %s (%zd bytes)\n", message.msg_text, n);
        msgctl(msgid, IPC_RMID, NULL);
    }
    return 0;
}
