/* A PKCS#11 module around SoftHSM that does what a token in trouble does.
 *
 * Files in the folder PROXY_FOLDER say what: `away` no token is there; `hang` (a FIFO) logins wait until somebody opens
 * it; `broken` decryption fails as a device does; `deaf` AES-GCM authenticates nothing beside the text; `flags` is
 * added, in hexadecimal, to those of the token; `leaves` no token is there from the login on that it gives the number
 * of. Every login leaves a byte in `logins`.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef unsigned long rv;
struct list { unsigned char version[2]; void *call[68]; };
struct mechanism { unsigned long type; void *parameter; unsigned long length; };
struct gcm { void *iv; unsigned long iv_length, iv_bits; void *aad; unsigned long aad_length, tag_bits; };
enum { GET_FUNCTION_LIST = 3, GET_SLOT_LIST, GET_TOKEN_INFO = 6, LOGIN = 18, ENCRYPT_INIT = 29, DECRYPT_INIT = 33 };
enum { FLAGS_IN_TOKEN_INFO = 96, DEVICE_ERROR = 0x30, DEVICE_REMOVED = 0x32, AES_GCM = 0x1087 };

static struct list *real, ours;

static const char *in_folder(const char *name)
{
    static __thread char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("PROXY_FOLDER"), name);
    return path;
}

static int there(const char *name)
{
    return access(in_folder(name), F_OK) == 0;
}

static int left(void)
{
    struct stat logins;
    FILE *file = fopen(in_folder("leaves"), "r");
    long number = 0;
    int gone = file && fscanf(file, "%ld", &number) == 1 && !stat(in_folder("logins"), &logins) && logins.st_size >= number;
    if (file)
        fclose(file);
    return gone;
}

static rv get_slot_list(unsigned char present, unsigned long *slots, unsigned long *count)
{
    if (there("away") || left()) {
        *count = 0;
        return 0;
    }
    return ((rv (*)(unsigned char, unsigned long *, unsigned long *))real->call[GET_SLOT_LIST])(present, slots, count);
}

static rv get_token_info(unsigned long slot, unsigned char *info)
{
    rv answer = ((rv (*)(unsigned long, unsigned char *))real->call[GET_TOKEN_INFO])(slot, info);
    FILE *file = fopen(in_folder("flags"), "r");
    unsigned long more = 0, flags;
    if (file && fscanf(file, "%lx", &more) == 1) {
        memcpy(&flags, info + FLAGS_IN_TOKEN_INFO, sizeof flags);
        flags |= more;
        memcpy(info + FLAGS_IN_TOKEN_INFO, &flags, sizeof flags);
    }
    if (file)
        fclose(file);
    return answer;
}

static rv login(unsigned long session, unsigned long user, unsigned char *pin, unsigned long length)
{
    int file = open(in_folder("logins"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (write(file, ".", 1) != 1)
        return DEVICE_ERROR;
    close(file);
    if (left())
        return DEVICE_REMOVED;
    if (there("hang"))
        close(open(in_folder("hang"), O_RDONLY));
    return ((rv (*)(unsigned long, unsigned long, unsigned char *, unsigned long))real->call[LOGIN])(session, user, pin, length);
}

static rv init(int which, unsigned long session, struct mechanism *mechanism, unsigned long key)
{
    if (which == DECRYPT_INIT && there("broken"))
        return DEVICE_ERROR;
    if (mechanism->type == AES_GCM && there("deaf"))
        ((struct gcm *)mechanism->parameter)->aad_length = 0;
    return ((rv (*)(unsigned long, struct mechanism *, unsigned long))real->call[which])(session, mechanism, key);
}

static rv encrypt_init(unsigned long session, struct mechanism *mechanism, unsigned long key)
{
    return init(ENCRYPT_INIT, session, mechanism, key);
}

static rv decrypt_init(unsigned long session, struct mechanism *mechanism, unsigned long key)
{
    return init(DECRYPT_INIT, session, mechanism, key);
}

rv C_GetFunctionList(struct list **list)
{
    if (!real) {
        void *library = dlopen(SOFTHSM, RTLD_NOW);
        rv (*get)(struct list **) = library ? (rv (*)(struct list **))dlsym(library, "C_GetFunctionList") : 0;
        if (!get || get(&real))
            return DEVICE_ERROR;
        ours = *real;
        ours.call[GET_FUNCTION_LIST] = C_GetFunctionList;
        ours.call[GET_SLOT_LIST] = get_slot_list;
        ours.call[GET_TOKEN_INFO] = get_token_info;
        ours.call[LOGIN] = login;
        ours.call[ENCRYPT_INIT] = encrypt_init;
        ours.call[DECRYPT_INIT] = decrypt_init;
    }
    *list = &ours;
    return 0;
}
