/* A queue of 10 messages of 256 bytes: queue_10x256 send|receive NAME. Sends one string with its
 * NUL; receives into a buffer of exactly the message size. */
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int main(int argc, char **argv) {
    struct mq_attr attr = {.mq_flags = 0, .mq_maxmsg = 10, .mq_msgsize = 256, .mq_curmsgs = 0};
    if (argc != 3) return 2;
    mqd_t queue = mq_open(argv[2], O_CREAT | O_RDWR, 0644, &attr);
    if (queue == (mqd_t)-1) {
        perror("mq_open");
        return 1;
    }
    if (strcmp(argv[1], "send") == 0) {
        const char *message = "Hello from C";
        if (mq_send(queue, message, strlen(message) + 1, 7) < 0) return 1;
    } else {
        char buffer[256];
        unsigned priority;
        ssize_t n = mq_receive(queue, buffer, 256, &priority);
        if (n < 0) return 1;
        printf("Received: %s (%zd bytes, priority %u)\n", buffer, n, priority);
    }
    mq_close(queue);
    return 0;
}
