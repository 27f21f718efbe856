/* The generator's command line: options in, one JSON object out. Times are in seconds, sizes in bytes. */
#define _GNU_SOURCE
#include "generator.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

Options options = {.scenario = "fanout", .protocol = "native", .clients = 100, .rooms = 1, .window = 1,
                   .senders = 1, .bytes = 128, .parallel = 50, .warm = 0.7, .seconds = 2.5, .settle = 1.2,
                   .patience = 20};
Report report;
const Protocol *protocol;
Client *clients;
Room *rooms;

static void refuse(const char *text) {
    fprintf(stderr, "generator: %s\n", text);
    exit(2);
}

static void read_pids(char *text) {
    for (char *each = strtok(text, ","); each && options.pid_count < 64; each = strtok(NULL, ","))
        options.pids[options.pid_count++] = atoi(each);
}

static void read_options(int count, char **values) {
    static const struct option lawful[] = {
        {"protocol", 1, 0, 'p'}, {"scenario", 1, 0, 's'}, {"port", 1, 0, 'P'},     {"path", 1, 0, 'u'},
        {"clients", 1, 0, 'c'},  {"rooms", 1, 0, 'r'},    {"window", 1, 0, 'W'},   {"rate", 1, 0, 'R'},
        {"senders", 1, 0, 'M'},  {"bytes", 1, 0, 'b'},    {"parallel", 1, 0, 'k'}, {"warm", 1, 0, 'w'},
        {"seconds", 1, 0, 't'},  {"settle", 1, 0, 'S'},   {"patience", 1, 0, 'q'}, {"pids", 1, 0, 'd'},
        {"bare", 0, 0, 'B'},     {"stalled", 0, 0, 'x'},  {0, 0, 0, 0}};
    for (int letter; (letter = getopt_long(count, values, "", lawful, NULL)) != -1;) switch (letter) {
        case 'p': options.protocol = optarg; break;
        case 's': options.scenario = optarg; break;
        case 'P': options.port = atoi(optarg); break;
        case 'u': options.path = optarg; break;
        case 'c': options.clients = atoi(optarg); break;
        case 'r': options.rooms = atoi(optarg); break;
        case 'W': options.window = atoi(optarg); break;
        case 'R': options.rate = atof(optarg); break;
        case 'M': options.senders = atoi(optarg); break;
        case 'b': options.bytes = atoi(optarg); break;
        case 'k': options.parallel = atoi(optarg); break;
        case 'w': options.warm = atof(optarg); break;
        case 't': options.seconds = atof(optarg); break;
        case 'S': options.settle = atof(optarg); break;
        case 'q': options.patience = atof(optarg); break;
        case 'd': read_pids(optarg); break;
        case 'B': options.bare = true; break;
        case 'x': options.stalled = true; break;
        default: exit(2);
    }
}

static void check_options(void) {
    bool echo = !strcmp(options.scenario, "echo"), durable = !strcmp(options.scenario, "durable");
    bool connect = !strcmp(options.scenario, "connect"), many = !strcmp(options.scenario, "rooms");
    if (!(protocol = find_protocol(options.protocol)))
        refuse("--protocol is one of native, durable, roomer, rtbroadcaster, gowsev, goroomserver, socketio, json, tutorial");
    if (!echo && !durable && !connect && !many && strcmp(options.scenario, "fanout"))
        refuse("--scenario is one of fanout, rooms, echo, durable, connect");
    if (options.port < 1 || options.clients < 1) refuse("--port and --clients are 1 or more");
    if (options.bytes < 40 || options.bytes > LARGEST_PAYLOAD) refuse("--bytes is 40 to 65536");
    if (options.window < 1 || options.window > LARGEST_WINDOW) refuse("--window is 1 to 256");
    if (echo ? !protocol->ask : !connect && !protocol->say) refuse("this protocol has nothing to say in this scenario");
    if (durable != !strcmp(protocol->name, "durable")) refuse("the scenario durable goes with the protocol durable");
    if (options.bare && !connect) refuse("--bare goes with the scenario connect");
    if (options.stalled && strcmp(options.scenario, "fanout")) refuse("--stalled goes with the scenario fanout");
    if (protocol->only_first_speaks || options.senders < 1) options.senders = 1;
    if (options.senders > options.clients) options.senders = options.clients;
    if (echo) options.rooms = options.clients;
    else if (!many) options.rooms = 1;
}

static void make_clients(void) {
    bool many = !strcmp(options.scenario, "rooms");
    rooms = calloc((size_t)options.rooms, sizeof *rooms);
    if (many)
        for (int i = options.clients = 0; i < options.rooms; i++) options.clients += 2 + i % 9;
    options.clients += options.stalled;
    clients = calloc((size_t)options.clients, sizeof *clients);
    for (uint32_t i = 0, room = 0; i < (uint32_t)options.clients; i++) {
        uint32_t most = many ? 2 + room % 9 : options.rooms > 1 ? 1 : (uint32_t)options.clients;
        if (!rooms[room].size++) rooms[room].first = i;
        clients[i] = (Client){.index = i, .room = room, .asked_at = calloc(LARGEST_WINDOW, sizeof(uint64_t))};
        if (rooms[room].size == most) room++;
    }
    clients[options.clients - 1].stalled = options.stalled;
}

static void print_fault(void) {
    for (const char *c = report.fault; *c; c++)
        if (*c == '"' || *c == '\\') printf("\\%c", *c);
        else if (*c >= ' ' && *c <= '~') putchar(*c);
}

static void print_report(void) {
    double deliveries = report.deliveries ? (double)report.deliveries : 1, seconds = report.seconds ? report.seconds : 1;
    printf("{\"protocol\": \"%s\", \"scenario\": \"%s\", \"clients\": %d, \"rooms\": %d, \"window\": %d, "
           "\"rate\": %g, \"senders\": %d, \"bytes\": %d, \"stalled\": %s, \"bare\": %s, \"seconds\": %.3f, ",
           options.protocol, options.scenario, options.clients, options.rooms, options.window, options.rate,
           options.senders, options.bytes, options.stalled ? "true" : "false", options.bare ? "true" : "false",
           report.seconds);
    printf("\"connected\": %d, \"closed\": %d, \"messages\": %llu, \"deliveries\": %llu, \"missing\": %llu, \"torn\": %llu, ",
           report.connected, report.closed, (unsigned long long)report.messages,
           (unsigned long long)report.deliveries, (unsigned long long)report.missing, (unsigned long long)report.torn);
    printf("\"messages_per_second\": %.1f, \"deliveries_per_second\": %.1f, \"cpu_us\": %.4f, \"p50_ms\": %.3f, "
           "\"p99_ms\": %.3f, \"cores\": %.3f, \"generator_cores\": %.3f, ",
           (double)report.messages / seconds, (double)report.deliveries / seconds, report.cpu_us / deliveries,
           latency_ms(0.5), latency_ms(0.99), report.cpu_us / 1e6 / seconds, report.generator_cpu_us / 1e6 / seconds);
    printf("\"connects_per_second\": %.1f, \"connect_cpu_us\": %.1f, \"connection_kb\": %.2f, \"rss_mb_before\": %.1f, "
           "\"rss_mb_after\": %.1f, \"fault\": ",
           report.connect_seconds > 0 ? 1 / report.connect_seconds : 0, report.connect_cpu_us, report.connect_rss_kb,
           report.rss_kb_before / 1024, report.rss_kb_after / 1024);
    if (*report.fault) putchar('"'), print_fault(), putchar('"');
    else printf("null");
    printf("}\n");
}

int main(int count, char **values) {
    struct rlimit files;
    read_options(count, values);
    check_options();
    if (!getrlimit(RLIMIT_NOFILE, &files)) files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
    make_clients();
    open_sockets();
    run();
    print_report();
    return *report.fault != 0;
}
