/* Forks; the child writes three strings, each with its NUL, into the pipe that is standard output. */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    const char *messages[] = {"hello", "", "how are you"};
    if (fork() == 0) {
        for (int i = 0; i < 3; i++) write(1, messages[i], strlen(messages[i]) + 1);
        _exit(0);
    }
    wait(NULL);
    return 0;
}
