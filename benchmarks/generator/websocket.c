/* The sockets: dialling, the handshake, frames in and out. Nothing here blocks: what a socket does not
 * take waits in the client's pending buffer. */
#define _GNU_SOURCE
#include "generator.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SCRATCH = 4 << 20 };
static uint8_t scratch[SCRATCH];
static int poller;
uint64_t read_at;

void open_sockets(void) { poller = epoll_create1(0); }

static void watch(Client *client, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = client};
    epoll_ctl(poller, operation, client->descriptor, &event);
}

static void keep(Buffer *buffer, const void *bytes, size_t length) {
    if (buffer->length + length > buffer->room) {
        buffer->room = buffer->length + length + 512;
        buffer->bytes = realloc(buffer->bytes, buffer->room);
        if (!buffer->bytes) abort();
    }
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

static void let_go(Buffer *buffer) {
    free(buffer->bytes);
    *buffer = (Buffer){0};
}

void hang_up(Client *client) {
    if (client->state == CLOSED || client->state == UNDIALLED) return;
    State before = client->state;
    client->state = CLOSED;
    close(client->descriptor);
    let_go(&client->partial);
    let_go(&client->fragments);
    let_go(&client->pending);
    ended(client, before);
}

void dial(Client *client) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    int on = 1, little = 4096;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    client->descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (client->descriptor < 0) {
        fault("no socket: %s", strerror(errno));
        exit(1);
    }
    setsockopt(client->descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* The kernel shall not read in the place of whoever does not read. */
    if (client->stalled) setsockopt(client->descriptor, SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
    client->state = CONNECTING;
    watch(client, EPOLL_CTL_ADD, EPOLLOUT);
    if (connect(client->descriptor, (void *)&address, sizeof address) && errno != EINPROGRESS) hang_up(client);
}

static void write_out(Client *client, const void *bytes, size_t length) {
    ssize_t taken = 0;
    if (client->state == CLOSED) return;
    if (!client->pending.length) {
        taken = send(client->descriptor, bytes, length, MSG_NOSIGNAL);
        if (taken < 0 && errno != EAGAIN) {
            hang_up(client);
            return;
        }
        if (taken < 0) taken = 0;
    }
    if ((size_t)taken == length) return;
    keep(&client->pending, (const char *)bytes + taken, length - (size_t)taken);
    watch(client, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
}

static void write_pending(Client *client) {
    Buffer rest = client->pending;
    client->pending = (Buffer){0};
    watch(client, EPOLL_CTL_MOD, EPOLLIN);
    write_out(client, rest.bytes, rest.length);
    let_go(&rest);
}

void send_frame(Client *client, int opcode, const void *bytes, size_t length) {
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    static uint8_t frame[LARGEST_MESSAGE + 16];
    size_t head = 2;
    frame[0] = (uint8_t)(0x80 | opcode);
    frame[1] = (uint8_t)(0x80 | (length < 126 ? length : length < 65536 ? 126 : 127));
    for (int bytes_left = length < 126 ? 0 : length < 65536 ? 2 : 8; bytes_left--;)
        frame[head++] = (uint8_t)(length >> (8 * bytes_left));
    memcpy(frame + head, mask, 4);
    head += 4;
    for (size_t i = 0; i < length; i++) frame[head + i] = ((const uint8_t *)bytes)[i] ^ mask[i & 3];
    write_out(client, frame, head + length);
}

void send_text(Client *client, const char *text) { send_frame(client, TEXT, text, strlen(text)); }

void stop_reading(Client *client) { watch(client, EPOLL_CTL_MOD, 0); }

static void upgrade(Client *client) {
    char name[32], path[256], request[1024];
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(client->descriptor, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        fault("client %u cannot connect: %s", client->index, strerror(error));
        hang_up(client);
        return;
    }
    room_name(name, client->room);
    snprintf(path, sizeof path, options.path ? options.path : protocol->path, name);
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: Z2VuZXJhdG9yIGNsaWVudA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          path, options.port);
    client->state = UPGRADING;
    watch(client, EPOLL_CTL_MOD, EPOLLIN);
    write_out(client, request, (size_t)length);
}

/* How many bytes the handshake's answer takes; 0: it is not whole yet. */
static size_t upgraded(Client *client, const uint8_t *bytes, size_t length) {
    const uint8_t *end = memmem(bytes, length, "\r\n\r\n", 4);
    if (!end) return 0;
    if (length < 12 || memcmp(bytes + 9, "101", 3)) {
        fault("client %u is refused: %.*s", client->index, (int)strcspn((const char *)bytes, "\r"), bytes);
        hang_up(client);
        return 0;
    }
    client->state = JOINING;
    opened(client);
    return (size_t)(end - bytes) + 4;
}

/* Some servers send in fragments what is larger than their buffer. */
static void take_data(Client *client, bool last, const uint8_t *payload, size_t size) {
    if (last && !client->fragments.length) {
        received(client, (const char *)payload, size);
        return;
    }
    if (client->fragments.length + size > SCRATCH) {
        fault("client %u is sent fragments without end", client->index);
        hang_up(client);
        return;
    }
    keep(&client->fragments, payload, size);
    if (!last) return;
    Buffer whole = client->fragments;
    client->fragments = (Buffer){0};
    received(client, (const char *)whole.bytes, whole.length);
    let_go(&whole);
}

/* How many bytes one whole frame takes; 0: it is not whole yet. */
static size_t take_frame(Client *client, const uint8_t *bytes, size_t length) {
    if (length < 2) return 0;
    int opcode = bytes[0] & 15, extended = (bytes[1] & 127) < 126 ? 0 : (bytes[1] & 127) == 126 ? 2 : 8;
    size_t head = 2 + (size_t)extended, size = extended ? 0 : bytes[1] & 127;
    if (length < head) return 0;
    for (int i = 0; i < extended; i++) size = size << 8 | bytes[2 + i];
    if (head + size > SCRATCH) {
        fault("client %u is sent a frame of %zu bytes", client->index, size);
        hang_up(client);
        return 0;
    }
    if (length - head < size) return 0;
    const uint8_t *payload = bytes + head;
    if (opcode == PING) {
        send_frame(client, PONG, payload, size < 125 ? size : 125);
    } else if (opcode == CLOSE) {
        fprintf(stderr, "client %u is closed with %d\n", client->index, size < 2 ? 1005 : payload[0] << 8 | payload[1]);
        hang_up(client);
    } else if (opcode == CONTINUATION || opcode == TEXT || opcode == BINARY) {
        take_data(client, bytes[0] & 0x80, payload, size);
    }
    return head + size;
}

static void read_in(Client *client) {
    size_t length = client->partial.length, done = 0, taken;
    memcpy(scratch, client->partial.bytes ? client->partial.bytes : scratch, length);
    ssize_t got = recv(client->descriptor, scratch + length, SCRATCH - length, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        hang_up(client);
        return;
    }
    read_at = now();
    length += (size_t)got;
    do {
        taken = client->state == UPGRADING ? upgraded(client, scratch + done, length - done)
                                           : take_frame(client, scratch + done, length - done);
        done += taken;
    } while (taken && client->state != CLOSED);
    if (client->state == CLOSED) return;
    client->partial.length = 0;
    if (done < length) keep(&client->partial, scratch + done, length - done);
    else let_go(&client->partial);
}

void poll_sockets(int milliseconds) {
    struct epoll_event events[512];
    int count = epoll_wait(poller, events, 512, milliseconds);
    for (int i = 0; i < count; i++) {
        Client *client = events[i].data.ptr;
        if (client->state == CONNECTING) upgrade(client);
        else if (client->stalled && client->state == READY) hang_up(client);
        else {
            if (client->state != CLOSED && events[i].events & EPOLLOUT) write_pending(client);
            if (client->state != CLOSED && events[i].events & ~(uint32_t)EPOLLOUT) read_in(client);
        }
    }
}
