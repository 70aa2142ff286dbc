/* A test program: any number of TEST(name) { ... } after this include. Each test runs on a thread of its own, so that
 * afterwards everything the runtime allocated must be gone, the thread's record included. A test that hangs is aborted.
 * Says a test's name only when it fails; the last line is "N passed, N failed". Arguments: names of tests to run. */
#ifndef HARNESS_H
#define HARNESS_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Stress parameters: the first normally, the second under ThreadSanitizer. */
#ifdef __SANITIZE_THREAD__
#define SCALE(normal, tsan) (tsan)
#else
#define SCALE(normal, tsan) (normal)
#endif

enum { HARNESS_SECONDS = SCALE(60, 120), HARNESS_TESTS_MAX = 64 };

typedef struct {
    const char *name;
    void (*run)(void);
} harness_test_t;

/* Blocks that the runtime has allocated and not freed (the Makefile wraps tether_alloc and tether_free; host.c). */
extern _Atomic long harness_blocks;

static harness_test_t harness_tests[HARNESS_TESTS_MAX];
static int harness_count;
static _Atomic int harness_failures; /* of the running test */
static const char *volatile harness_running = "";

#define TEST(name)                                                     \
    static void name(void);                                            \
    __attribute__((constructor)) static void harness_add_##name(void)  \
    {                                                                  \
        harness_tests[harness_count++] = (harness_test_t){#name, name}; \
    }                                                                  \
    static void name(void)

/* Usable on every thread; goes on after a failure. */
#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            if (atomic_fetch_add(&harness_failures, 1) < 5)                                      \
                fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition);    \
        }                                                                                        \
    } while (0)

static void harness_hang(int sig)
{
    (void)sig;
    static const char text[] = "hangs: ";
    if (write(2, text, sizeof text - 1) < 0 || write(2, harness_running, strlen(harness_running)) < 0 ||
        write(2, "\n", 1) < 0)
        _exit(3);
    abort();
}

static void *harness_call(void *test)
{
    ((harness_test_t *)test)->run();
    return NULL;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;
    signal(SIGALRM, harness_hang);
    for (int i = 0; i < harness_count; i++) {
        bool wanted = argc < 2;
        for (int a = 1; a < argc; a++)
            wanted |= strcmp(argv[a], harness_tests[i].name) == 0;
        if (!wanted)
            continue;
        harness_running = harness_tests[i].name;
        atomic_store(&harness_failures, 0);
        alarm(HARNESS_SECONDS);
        pthread_t thread;
        if (pthread_create(&thread, NULL, harness_call, &harness_tests[i]) != 0) {
            perror("pthread_create");
            return 2;
        }
        pthread_join(thread, NULL);
        alarm(0);
        CHECK(atomic_exchange(&harness_blocks, 0) == 0);
        if (atomic_load(&harness_failures) != 0) {
            fprintf(stderr, "FAILED %s\n", harness_running);
            failed++;
        } else {
            passed++;
        }
    }
    fflush(stderr);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}

#endif
