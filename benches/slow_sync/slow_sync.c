/* Loaded in front of the C library (LD_PRELOAD): every fsync and fdatasync takes as long as SLOW_SYNC_US says, one after the
 * other as on a disk, and reaches no disk. */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

static pthread_mutex_t disk = PTHREAD_MUTEX_INITIALIZER;

static int slow_sync(void) {
    const char *text = getenv("SLOW_SYNC_US");
    long long micros = text ? atoll(text) : 4000;
    struct timespec left = {micros / 1000000, micros % 1000000 * 1000};
    pthread_mutex_lock(&disk);
    while (nanosleep(&left, &left) != 0) {
    }
    pthread_mutex_unlock(&disk);
    return 0;
}

int fsync(int file) {
    (void)file;
    return slow_sync();
}

int fdatasync(int file) {
    (void)file;
    return slow_sync();
}
