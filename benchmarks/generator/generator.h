/* What the parts of the generator share. It opens clients of a room server, has them speak, and counts
 * what each of them hears. The flow: main.c reads the options and prints the report, scenarios.c decides
 * who speaks when, protocols.c knows what a server understands, websocket.c has the sockets, measures.c
 * reads clocks and processes. One process, one thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { LARGEST_PAYLOAD = 65536, LARGEST_MESSAGE = LARGEST_PAYLOAD + 1024, LARGEST_WINDOW = 256 };

typedef enum { UNDIALLED, CONNECTING, UPGRADING, JOINING, READY, CLOSED } State;

typedef struct {
    uint8_t *bytes;
    size_t length, room;
} Buffer;

/* How much was said or heard, and a sum over it in which no message can stand for another. */
typedef struct {
    uint64_t count, sum;
} Tally;

typedef struct {
    int descriptor;
    State state;
    int step;          /* of its protocol's way into the room */
    uint32_t index, room;
    bool stalled;      /* never reads once it is in its room */
    char id[64];       /* by which the server knows it, where a protocol needs that */
    Buffer partial;    /* read, and not yet a whole frame */
    Buffer fragments;  /* of a message whose end is still to come */
    Buffer pending;    /* to be written as soon as the socket takes it */
    Tally said, heard;
    uint64_t *asked_at; /* when the requests that are not answered yet were made, in nanoseconds */
    uint64_t asked, answered;
} Client;

typedef struct {
    uint32_t first, size, turn; /* its clients are first … first + size - 1; whose turn it is to speak */
    int64_t awaited;            /* deliveries of the message under way */
    Tally said;
    char id[64];
} Room;

typedef struct {
    const char *protocol, *scenario, *path;
    int port, clients, rooms, window, senders, bytes, parallel;
    double rate, warm, seconds, settle, patience; /* how long nothing may arrive that is awaited */
    bool bare, stalled;
    int pids[64], pid_count;
} Options;

/* What a server understands. */
typedef struct {
    const char *name, *path; /* %s in a path is the name of the client's room */
    int opcode;
    bool hears_itself;       /* the speaker is told its own message too */
    bool only_first_speaks;  /* whoever made the room is the only one who may speak */
    bool answers_blindly;    /* an answer does not repeat what was asked */
    void (*open)(Client *);
    void (*join)(Client *, const char *, size_t); /* what comes before the client is READY */
    size_t (*say)(const Client *, char *, const char *payload);
    size_t (*ask)(const Client *, char *, const char *payload); /* a request for its sender alone */
    const char *beat, *beat_answer; /* how a heartbeat begins, and what is answered */
} Protocol;

/* What a run found. A fault is the first thing that makes it worthless. */
typedef struct {
    int connected, closed;
    uint64_t messages, deliveries, missing, torn;
    double seconds, cpu_us, generator_cpu_us;
    double connect_seconds, connect_cpu_us, connect_rss_kb;
    double rss_kb_before, rss_kb_after;
    char fault[512];
} Report;

extern Options options;
extern Report report;
extern const Protocol *protocol;
extern Client *clients;
extern Room *rooms;

/* protocols.c */
const Protocol *find_protocol(const char *name);
void room_name(char *name, uint32_t room);
bool contains(const char *text, size_t length, const char *part);

/* websocket.c */
extern uint64_t read_at; /* when the frame that is handled now was read */
void open_sockets(void);
void dial(Client *);
void send_frame(Client *, int opcode, const void *, size_t);
void send_text(Client *, const char *);
void stop_reading(Client *);
void hang_up(Client *);
void poll_sockets(int milliseconds);

/* scenarios.c: what websocket.c and protocols.c report, and the run */
void opened(Client *);
void received(Client *, const char *, size_t);
void joined(Client *);
void ended(Client *, State before);
void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
void run(void); /* fills the report */

/* measures.c */
uint64_t now(void);
void note_latency(uint64_t nanoseconds);
double latency_ms(double quantile);
double server_cpu_us(void);
double server_rss_kb(void);
double own_cpu_us(void);
