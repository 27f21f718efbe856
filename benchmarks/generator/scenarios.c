/* Who speaks when, and whether everybody heard it.
 *
 *   fanout   one room; `window` messages are under way, or `rate` are said in a second
 *   rooms    many rooms of 2 to 10, in each of which one message is under way, and all take turns
 *   echo     everybody has one request under way, which is answered to them alone
 *   durable  everybody in one room has `window` messages under way that are not acknowledged yet
 *   connect  nobody speaks
 *
 * What is said is `@@`, a number, the time, and filling up to `##`. A delivery counts if all of it is
 * there. At the end each client must have heard each message of its room, each once. */
#define _GNU_SOURCE
#include "generator.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t SECOND = 1000000000u;
enum { LONGEST_SETTLING = 20, QUIET_NS = 300000000, MOST_UNDER_WAY = 64 };

static uint64_t said, counted, frames;      /* messages; what the scenario counts; all that arrived */
static int64_t awaited;                     /* deliveries and answers that are under way */
static int ready, under_way;                /* clients that are in their room; that are on their way */
static uint64_t first_number, last_number, number_sum; /* that the server gave to what it stored */
static bool speaking, measuring;

static bool scenario_is(const char *name) { return !strcmp(options.scenario, name); }

static bool out_of_patience(uint64_t since) { return (double)(now() - since) / 1e9 > options.patience; }

void fault(const char *format, ...) {
    va_list arguments;
    if (*report.fault) return;
    va_start(arguments, format);
    vsnprintf(report.fault, sizeof report.fault, format, arguments);
    va_end(arguments);
}

/* No two different collections of numbers are likely to have the same sum. */
static void add(Tally *tally, uint64_t number) {
    uint64_t mixed = (number + 1) * 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ mixed >> 29) * 0xbf58476d1ce4e5b9u;
    tally->count++;
    tally->sum += mixed ^ mixed >> 32;
}

static uint64_t hexadecimal(const char *digits) {
    uint64_t value = 0;
    for (int i = 0; i < 16; i++) value = value << 4 | (uint64_t)(digits[i] <= '9' ? digits[i] - '0' : digits[i] - 'a' + 10);
    return value;
}

static const char *payload(uint64_t number) {
    static char text[LARGEST_PAYLOAD + 1];
    int head = sprintf(text, "@@%016" PRIx64 "%016" PRIx64, number, now());
    memset(text + head, 'x', (size_t)(options.bytes - head - 2));
    strcpy(text + options.bytes - 2, "##");
    return text;
}

/* The people of a room who hear what one of them says. */
static uint32_t listeners(const Room *room) {
    return room->size - (options.stalled ? 1 : 0) - (protocol->hears_itself ? 0 : 1);
}

static void say(Client *client) {
    static char message[LARGEST_MESSAGE];
    Room *room = &rooms[client->room];
    uint64_t number = said++;
    size_t length = protocol->say(client, message, payload(number));
    add(&room->said, number);
    add(&client->said, number);
    room->awaited += listeners(room);
    awaited += listeners(room);
    send_frame(client, protocol->opcode, message, length);
}

static void ask(Client *client) {
    static char message[LARGEST_MESSAGE];
    client->asked++;
    awaited++;
    client->asked_at[client->asked % LARGEST_WINDOW] = now();
    if (scenario_is("durable")) {
        say(client);
    } else {
        size_t length = protocol->ask(client, message, payload(client->asked));
        said++;
        send_frame(client, protocol->opcode, message, length);
    }
}

static void next_speaker(Room *room) {
    say(&clients[room->first + room->turn]);
    room->turn = protocol->only_first_speaks ? 0 : (room->turn + 1) % room->size;
}

static void count(uint64_t since) {
    counted++;
    if (measuring) note_latency(read_at - since);
}

static void answered(Client *client, uint64_t request) {
    client->answered++;
    awaited--;
    count(client->asked_at[request % LARGEST_WINDOW]);
    if (speaking) ask(client);
}

static void hear(Client *client, const char *text, size_t length) {
    Room *room = &rooms[client->room];
    for (const char *mark; (mark = memmem(text, length, "@@", 2)); text = mark + options.bytes) {
        length -= (size_t)(mark - text);
        if (length < (size_t)options.bytes || memcmp(mark + options.bytes - 2, "##", 2)) {
            report.torn++;
            return;
        }
        length -= (size_t)options.bytes;
        add(&client->heard, hexadecimal(mark + 2));
        awaited--;
        if (!scenario_is("durable")) count(hexadecimal(mark + 18));
        if (--room->awaited == 0 && speaking && scenario_is("rooms")) next_speaker(room);
    }
}

static void hear_answer(Client *client, const char *text, size_t length) {
    const char *mark = memmem(text, length, "@@", 2);
    if (protocol->answers_blindly || (mark && hexadecimal(mark + 2) == client->asked)) answered(client, client->asked);
    else if (mark) report.torn++;
}

static uint64_t number_after(const char *text, const char *end, const char *name) {
    const char *found = memmem(text, (size_t)(end - text), name, strlen(name));
    return found ? strtoull(found + strlen(name), NULL, 10) : 0;
}

static void hear_acknowledgements(Client *client, const char *text, size_t length) {
    const char *end = text + length, *reply;
    if (contains(text, length, "\"type\":\"error\"")) fault("client %u is refused: %.*s", client->index, (int)length, text);
    while ((reply = memmem(text, (size_t)(end - text), "\"type\":\"reply\"", 14))) {
        uint64_t number = number_after(reply, end, "\"seq\":");
        text = reply + 14;
        if (!number) {
            fault("client %u is acknowledged without a number: %.*s", client->index, (int)length, reply);
            return;
        }
        if (!first_number || number < first_number) first_number = number;
        if (number > last_number) last_number = number;
        number_sum += number;
        answered(client, number_after(reply, end, "\"id\":"));
    }
}

void opened(Client *client) {
    if (protocol->open) protocol->open(client);
}

void joined(Client *client) {
    if (client->state != JOINING) return;
    client->state = READY;
    under_way--;
    ready++;
    if (client->stalled) stop_reading(client);
}

void ended(Client *client, State before) {
    if (before == READY) ready--;
    else under_way--;
    report.closed++;
    if (!client->stalled || before != READY) fault("client %u is closed by the server", client->index);
}

void received(Client *client, const char *text, size_t length) {
    frames++;
    if (protocol->beat && length < 64 && length >= strlen(protocol->beat) &&
        !memcmp(text, protocol->beat, strlen(protocol->beat))) {
        send_text(client, protocol->beat_answer);
    } else if (client->state == JOINING) {
        protocol->join(client, text, length);
    } else if (client->state == READY && scenario_is("echo")) {
        hear_answer(client, text, length);
    } else if (client->state == READY) {
        hear(client, text, length);
        if (scenario_is("durable")) hear_acknowledgements(client, text, length);
    }
}

/* Dial everybody, or whoever is the first in each room, and wait until they are there. */
static void dial_all(bool only_first) {
    uint64_t moved_at = now(), seen = frames;
    int next = 0;
    for (;;) {
        while (under_way < options.parallel && next < options.clients) {
            Client *client = &clients[next++];
            if (client->state != UNDIALLED || (only_first && client->index != rooms[client->room].first)) continue;
            under_way++;
            dial(client);
        }
        if ((!under_way && next == options.clients) || *report.fault) return;
        poll_sockets(100);
        if (frames != seen) moved_at = now(), seen = frames;
        if (out_of_patience(moved_at)) fault("%d clients do not come in", under_way);
    }
}

/* What the joins caused shall be over before anybody speaks. */
static void settle(void) {
    uint64_t begun = now(), heard_at = begun, seen = frames, least = (uint64_t)(options.settle * 1e9);
    while (!*report.fault && (now() - begun < least ||
                              (now() - heard_at < QUIET_NS && now() - begun < LONGEST_SETTLING * SECOND))) {
        poll_sockets(20);
        if (frames != seen) heard_at = now(), seen = frames;
    }
}

static void bring_in(void) {
    /* What a server loads for its first client is not counted for each of them. */
    dial_all(true);
    double rss = server_rss_kb(), cpu = server_cpu_us();
    uint64_t begun = now();
    int before = ready;
    dial_all(false);
    report.connect_seconds = (double)(now() - begun) / 1e9;
    settle();
    int more = ready - before;
    report.connected = ready;
    report.rss_kb_before = server_rss_kb();
    report.connect_rss_kb = more ? (report.rss_kb_before - rss) / more : 0;
    report.connect_cpu_us = more ? (server_cpu_us() - cpu) / more : 0;
    report.connect_seconds = more ? report.connect_seconds / more : 0;
}

static void begin_speaking(void) {
    speaking = true;
    for (int i = 0; scenario_is("rooms") && i < options.rooms; i++) next_speaker(&rooms[i]);
    for (int i = 0; scenario_is("echo") && i < options.clients; i++) ask(&clients[i]);
    for (int i = 0; scenario_is("durable") && i < options.clients * options.window; i++) ask(&clients[i % options.clients]);
}

/* In the scenario fanout: say what is due. */
static void speak(void) {
    static uint64_t due;
    int64_t each = listeners(&rooms[0]);
    if (!scenario_is("fanout")) return;
    if (options.rate <= 0) {
        while (awaited <= (options.window - 1) * each && !*report.fault) say(&clients[said % (uint64_t)options.senders]);
        return;
    }
    uint64_t time = now();
    if (!due) due = time;
    /* A server that cannot keep up is not buried: what it does not manage is not said. */
    for (; due <= time; due += (uint64_t)(1e9 / options.rate))
        if (awaited <= MOST_UNDER_WAY * each) say(&clients[said % (uint64_t)options.senders]);
}

/* Until `seconds` are over, or with 0 until nothing is under way. */
static void go_on(double seconds) {
    uint64_t begun = now(), moved_at = begun, seen = counted;
    while (!*report.fault && (seconds > 0 ? (double)(now() - begun) / 1e9 < seconds : awaited > 0)) {
        if (speaking) speak();
        poll_sockets(options.rate > 0 ? 1 : 10);
        if (counted != seen) moved_at = now(), seen = counted;
        if (out_of_patience(moved_at)) break;
    }
}

static void measure(void) {
    uint64_t messages = said, deliveries = counted, begun = now();
    double cpu = server_cpu_us(), own = own_cpu_us();
    measuring = true;
    go_on(options.seconds);
    measuring = false;
    report.seconds = (double)(now() - begun) / 1e9;
    report.cpu_us = server_cpu_us() - cpu;
    report.generator_cpu_us = own_cpu_us() - own;
    report.messages = said - messages;
    report.deliveries = counted - deliveries;
}

static void verify(void) {
    uint64_t acknowledged = 0;
    for (int i = 0; i < options.clients; i++) {
        Client *client = &clients[i];
        Tally wanted = rooms[client->room].said;
        acknowledged += client->answered;
        report.missing += client->asked - client->answered;
        if (client->stalled || scenario_is("echo")) continue;
        if (!protocol->hears_itself) wanted.count -= client->said.count, wanted.sum -= client->said.sum;
        if (client->heard.count < wanted.count) report.missing += wanted.count - client->heard.count;
        else if (client->heard.count > wanted.count || client->heard.sum != wanted.sum)
            fault("client %u heard something twice, or what was not meant for it", client->index);
    }
    if (report.missing) fault("%" PRIu64 " deliveries or answers are missing", report.missing);
    if (report.torn) fault("%" PRIu64 " deliveries are not whole", report.torn);
    /* Numbers without a hole and without a double: as many as there are between the first and the last. */
    if (scenario_is("durable") && (last_number - first_number + 1 != acknowledged ||
                                   number_sum * 2 != acknowledged * (first_number + last_number)))
        fault("the numbers of what was stored have holes or doubles");
}

void run(void) {
    bring_in();
    if (scenario_is("connect") || *report.fault) return;
    begin_speaking();
    go_on(options.warm);
    measure();
    speaking = false;
    go_on(0);
    report.rss_kb_after = server_rss_kb();
    verify();
}
