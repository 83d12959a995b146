/* posix_queue send|receive NAME: one message. */
#include <fcntl.h>
#include <mqueue.h>
#include "whole.h"

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    if (strcmp(argv[1], "send") == 0) {
        size_t size;
        char *body = whole_input(&size);
        mqd_t queue = mq_open(argv[2], O_WRONLY);
        if (queue == (mqd_t)-1) fail("mq_open");
        if (mq_send(queue, body, size, 0) < 0) fail("mq_send");
    } else {
        mqd_t queue = mq_open(argv[2], O_RDONLY);
        if (queue == (mqd_t)-1) fail("mq_open");
        struct mq_attr attr;
        mq_getattr(queue, &attr);
        char *buffer = malloc(attr.mq_msgsize);
        ssize_t n = mq_receive(queue, buffer, attr.mq_msgsize, NULL);
        if (n < 0) fail("mq_receive");
        write_all(1, buffer, n);
    }
    return 0;
}
