/* A queue with the attributes that the system gives: queue_default send|receive NAME. */
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    mqd_t queue = mq_open(argv[2], O_CREAT | O_RDWR, 0644, NULL);
    if (queue == (mqd_t)-1) {
        perror("mq_open");
        return 1;
    }
    if (strcmp(argv[1], "send") == 0) {
        if (mq_send(queue, "Hello", 5, 0) < 0) return 1;
    } else {
        char buffer[8192 + 1];
        ssize_t n = mq_receive(queue, buffer, sizeof buffer, NULL);
        if (n < 0) return 1;
        buffer[n] = '\0';
        printf("Received: %s (%zd bytes)\n", buffer, n);
    }
    return 0;
}
