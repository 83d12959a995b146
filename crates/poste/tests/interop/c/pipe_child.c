/* The child of a pipe: reads once, and prints the string that came with its NUL. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
    char buffer[256];
    ssize_t n = read(0, buffer, sizeof buffer);
    if (n <= 0) return 1;
    printf("child received: %s (%zd bytes)\n", buffer, n);
    return 0;
}
