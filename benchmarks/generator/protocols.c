/* What the servers understand: how a client comes into its room, speaks there, and asks for itself.
 * Rooms' own protocol, those of the four Go servers, Socket.IO, the chat of the Channels tutorial, and
 * the few words of the plain `ws` server beside this. */
#define _GNU_SOURCE
#include "generator.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool contains(const char *text, size_t length, const char *part) {
    return memmem(text, length, part, strlen(part)) != NULL;
}

void room_name(char *name, uint32_t room) { sprintf(name, "room%u", room); }

static const char *own_room(const Client *client) {
    static char name[32];
    room_name(name, client->room);
    return name;
}

/* What a client does that is in its room as soon as it is connected, or wants no room. */
static void enter_at_once(Client *client) { joined(client); }

static void ignore(Client *client, const char *text, size_t length) { (void)client, (void)text, (void)length; }

/* Rooms' own: connected, login, join. */

static void native_join(Client *client, const char *text, size_t length) {
    char request[256];
    if (contains(text, length, "\"type\":\"error\"")) {
        fault("client %u is refused: %.*s", client->index, (int)length, text);
        hang_up(client);
    } else if (client->step == 0 && contains(text, length, "\"type\":\"connected\"")) {
        if (options.bare) {
            joined(client);
            return;
        }
        client->step = 1;
        sprintf(request, "{\"type\":\"login\",\"id\":1,\"name\":\"load-%d-%u\"}", getpid(), client->index);
        send_text(client, request);
    } else if (client->step == 1 && contains(text, length, "\"token\"")) {
        client->step = 2;
        sprintf(request, "{\"type\":\"join\",\"id\":2,\"room\":\"%s\",\"limit\":0}", own_room(client));
        send_text(client, request);
    } else if (client->step == 2 && contains(text, length, "\"position\"")) {
        joined(client);
    }
}

static size_t native_say(const Client *client, char *out, const char *payload) {
    return (size_t)sprintf(out, "{\"type\":\"message\",\"room\":\"%s\",\"data\":\"%s\"}", own_room(client), payload);
}

/* An id has at most 64 characters: the mark fits, what fills it up does not. */
static size_t native_ping(const Client *client, char *out, const char *payload) {
    (void)client;
    return (size_t)sprintf(out, "{\"type\":\"ping\",\"id\":\"%.34s##\"}", payload);
}

/* Stored and acknowledged: the answer names the request and the message's number. */
static size_t durable_say(const Client *client, char *out, const char *payload) {
    return (size_t)sprintf(
        out, "{\"type\":\"message\",\"id\":%llu,\"key\":\"%d-%u-%llu\",\"room\":\"%s\",\"data\":\"%s\"}",
        (unsigned long long)client->asked, getpid(), client->index, (unsigned long long)client->asked,
        own_room(client), payload);
}

/* roomer: five binary fields, each after its length. */

static size_t field(char *out, const char *text, size_t length) {
    for (int i = 0; i < 4; i++) out[i] = (char)(length >> (24 - 8 * i));
    memcpy(out + 4, text, length);
    return length + 4;
}

static size_t roomer_frame(char *out, const char *room, const char *event, const char *to, const char *payload) {
    size_t length = field(out, room, strlen(room));
    length += field(out + length, event, strlen(event));
    length += field(out + length, to, strlen(to));
    length += field(out + length, "", 0);
    return length + field(out + length, payload, strlen(payload));
}

static const char *roomer_room(const Client *client) { return options.rooms == 1 ? "root" : own_room(client); }

/* Everybody is in `root` as soon as they are connected; a single room is that one. */
static void roomer_join(Client *client, const char *text, size_t length) {
    char fields[4][64] = {{0}}, request[256];
    for (int i = 0; i < 4 && length >= 4; i++) {
        const uint8_t *head = (const uint8_t *)text;
        size_t size = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        if (size > length - 4) return;
        memcpy(fields[i], text + 4, size < 63 ? size : 63);
        text += 4 + size;
        length -= 4 + size;
    }
    if (strcmp(fields[1], "join_ack")) return;
    if (client->step++ || options.rooms == 1 || options.bare) joined(client);
    else send_frame(client, BINARY, request, roomer_frame(request, own_room(client), "join", "", ""));
    strcpy(client->id, fields[3]);
}

static size_t roomer_say(const Client *client, char *out, const char *payload) {
    return roomer_frame(out, roomer_room(client), "message", "", payload);
}

static size_t roomer_to_itself(const Client *client, char *out, const char *payload) {
    return roomer_frame(out, roomer_room(client), "message", client->id, payload);
}

/* rtbroadcaster: the first makes the room and is the only one who speaks; the others join by its id. */

static void rtbroadcaster_open(Client *client) {
    char request[256];
    if (options.bare) {
        joined(client);
        return;
    }
    sprintf(request, "{\"uuid\":\"%s\",\"status\":{\"value\":%d,\"text\":\"\"},\"funcKey\":\"\",\"funcParams\":[],"
                     "\"stateMessage\":false}",
            rooms[client->room].id, client->index == rooms[client->room].first ? 1 : 2);
    send_text(client, request);
}

static void rtbroadcaster_join(Client *client, const char *text, size_t length) {
    const char *id = memmem(text, length, "\"uuid\":\"", 8);
    if (!id || !contains(text, length, "\"value\":3")) return;
    if (client->index == rooms[client->room].first) sprintf(rooms[client->room].id, "%.36s", id + 8);
    joined(client);
}

static size_t rtbroadcaster_say(const Client *client, char *out, const char *payload) {
    return (size_t)sprintf(out,
                           "{\"uuid\":\"%s\",\"status\":{\"value\":3,\"text\":\"connected\"},\"funcKey\":\"f\","
                           "\"funcParams\":[\"%s\"],\"stateMessage\":false}",
                           rooms[client->room].id, payload);
}

/* gowsev: commands in text, bodies in binary. */

static void gowsev_open(Client *client) {
    char request[64];
    if (options.bare) {
        joined(client);
        return;
    }
    sprintf(request, "subscribe:%s", own_room(client));
    send_text(client, request);
}

static void gowsev_join(Client *client, const char *text, size_t length) {
    if (length == 2 && !memcmp(text, "OK", 2)) joined(client);
}

static size_t gowsev_say(const Client *client, char *out, const char *payload) {
    return (size_t)sprintf(out, "publish:%s:%s", own_room(client), payload);
}

/* Its cheapest answer: that this is no command. */
static size_t gowsev_ask(const Client *client, char *out, const char *payload) {
    (void)client;
    return (size_t)sprintf(out, "echo:%s", payload);
}

/* goroomserver: without handlers of its own it only answers, here that there is no such application. */

static size_t goroomserver_ask(const Client *client, char *out, const char *payload) {
    (void)client;
    return (size_t)sprintf(
        out, "{\"appName\":\"\",\"roomName\":\"\",\"eventType\":11,\"data\":{\"text\":\"%s\"}}", payload);
}

/* Socket.IO 4: engine.io's 0 is the greeting, 2 and 3 its heartbeat, 40 the namespace, 42 an event. */

static void socketio_join(Client *client, const char *text, size_t length) {
    char request[64];
    if (text[0] == '0') {
        send_text(client, "40");
    } else if (length >= 2 && !memcmp(text, "40", 2)) {
        if (options.bare) {
            joined(client);
            return;
        }
        sprintf(request, "42[\"join\",\"%s\"]", own_room(client));
        send_text(client, request);
    } else if (contains(text, length, "\"joined\"")) {
        joined(client);
    }
}

static size_t socketio_say(const Client *client, char *out, const char *payload) {
    return (size_t)sprintf(out, "42[\"message\",\"%s\",\"%s\"]", own_room(client), payload);
}

static size_t socketio_ask(const Client *client, char *out, const char *payload) {
    (void)client;
    return (size_t)sprintf(out, "42[\"echo\",\"%s\"]", payload);
}

/* The plain `ws` server of these benchmarks. */

static void json_open(Client *client) {
    char request[64];
    if (options.bare) {
        joined(client);
        return;
    }
    sprintf(request, "{\"type\":\"join\",\"room\":\"%s\"}", own_room(client));
    send_text(client, request);
}

static void json_join(Client *client, const char *text, size_t length) {
    if (contains(text, length, "\"joined\"")) joined(client);
}

static size_t json_ask(const Client *client, char *out, const char *payload) {
    (void)client;
    return (size_t)sprintf(out, "{\"type\":\"echo\",\"data\":\"%s\"}", payload);
}

/* The chat of the Channels tutorial: the room is in the address, and a room of one answers itself. */

static size_t tutorial_say(const Client *client, char *out, const char *payload) {
    (void)client;
    return (size_t)sprintf(out, "{\"message\":\"%s\"}", payload);
}

static const char native_ping_start[] = "{\"type\":\"ping\"", native_pong[] = "{\"type\":\"pong\"}";

static const Protocol protocols[] = {
    {.name = "native", .path = "/ws/rooms/bench/", .opcode = TEXT, .hears_itself = true, .open = NULL,
     .join = native_join, .say = native_say, .ask = native_ping,
     .beat = native_ping_start, .beat_answer = native_pong},
    {.name = "durable", .path = "/ws/rooms/durable/", .opcode = TEXT, .hears_itself = true, .open = NULL,
     .join = native_join, .say = durable_say, .beat = native_ping_start, .beat_answer = native_pong},
    {.name = "roomer", .path = "/ws", .opcode = BINARY, .join = roomer_join, .say = roomer_say,
     .ask = roomer_to_itself},
    {.name = "rtbroadcaster", .path = "/broadcasting", .opcode = TEXT, .only_first_speaks = true,
     .open = rtbroadcaster_open, .join = rtbroadcaster_join, .say = rtbroadcaster_say},
    {.name = "gowsev", .path = "/", .opcode = TEXT, .hears_itself = true, .answers_blindly = true,
     .open = gowsev_open, .join = gowsev_join, .say = gowsev_say, .ask = gowsev_ask},
    {.name = "goroomserver", .path = "/", .opcode = TEXT, .open = enter_at_once, .join = ignore,
     .ask = goroomserver_ask},
    {.name = "socketio", .path = "/socket.io/?EIO=4&transport=websocket", .opcode = TEXT, .hears_itself = true,
     .join = socketio_join, .say = socketio_say, .ask = socketio_ask, .beat = "2", .beat_answer = "3"},
    {.name = "json", .path = "/", .opcode = TEXT, .hears_itself = true, .open = json_open, .join = json_join,
     .say = native_say, .ask = json_ask},
    {.name = "tutorial", .path = "/ws/chat/%s/", .opcode = TEXT, .hears_itself = true, .open = enter_at_once,
     .join = ignore, .say = tutorial_say, .ask = tutorial_say},
};

const Protocol *find_protocol(const char *name) {
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
        if (!strcmp(protocols[i].name, name)) return &protocols[i];
    return NULL;
}
