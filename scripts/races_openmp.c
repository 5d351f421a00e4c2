/* OpenMP for ThreadSanitizer: the six functions that the compiled loops call, on plain POSIX threads.
 *
 * GCC's own library synchronises its threads by futexes that the sanitizer cannot see, so that every loop looks like a
 * race. Here a team is created and joined for each parallel region, and meets at a POSIX barrier: all of it is seen,
 * and what is reported is a race. `races_control` is one, to show that it would be.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>

struct team {
    void (*body)(void *);
    void *data;
    int threads;
    pthread_barrier_t barrier;
};
struct member {
    struct team *team;
    int number;
};

static __thread struct member here = {NULL, 0};

int omp_get_num_procs(void) { return 4; }
int omp_get_max_threads(void) { return 4; }
int omp_get_num_threads(void) { return here.team ? here.team->threads : 1; }
int omp_get_thread_num(void) { return here.number; }
void GOMP_barrier(void) {
    if (here.team) pthread_barrier_wait(&here.team->barrier);
}

static void *work(void *member)
{
    here = *(struct member *)member;
    here.team->body(here.team->data);
    return NULL;
}

void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags)
{
    (void)flags;
    struct member before = here;
    struct team team = {.body = body, .data = data, .threads = before.team ? 1 : threads ? (int)threads : 4};
    struct member members[256];
    pthread_t handles[256];
    if (team.threads > 256) abort();
    pthread_barrier_init(&team.barrier, NULL, (unsigned)team.threads);
    for (int i = 0; i < team.threads; i++) members[i] = (struct member){&team, i};
    for (int i = 1; i < team.threads; i++)
        if (pthread_create(&handles[i], NULL, work, &members[i])) abort();
    work(&members[0]);
    for (int i = 1; i < team.threads; i++) pthread_join(handles[i], NULL);
    pthread_barrier_destroy(&team.barrier);
    here = before;
}

static void add_one(void *sum) { ++*(long *)sum; }

long races_control(void)
{
    long sum = 0;
    GOMP_parallel(add_one, &sum, 2, 0);
    return sum;
}
