/* How fast a quorum queue takes confirmed publishes, and gives messages away for acknowledgement.
 * broker_limit PORT VHOST COUNT: a window of 1,000 unconfirmed, then prefetch 1,000, and one
 * acknowledgement for each 100. Prints two rates as JSON. */
#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_tcp_socket.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WINDOW = 1000, ACK_EVERY = 100, CHANNEL = 1 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what) {
    fprintf(stderr, "broker_limit: %s\n", what);
    exit(1);
}

static void check(amqp_rpc_reply_t reply, const char *what) {
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

/* Reads one frame and marks what it confirms; returns how many that are. */
static long confirmed(amqp_connection_state_t conn, char *is_done, long *first_open) {
    amqp_frame_t frame;
    long found = 0;
    amqp_maybe_release_buffers(conn);
    if (amqp_simple_wait_frame(conn, &frame) != AMQP_STATUS_OK) fail("connection lost");
    if (frame.frame_type != AMQP_FRAME_METHOD) return 0;
    if (frame.payload.method.id != AMQP_BASIC_ACK_METHOD) fail("a publish was not confirmed");
    amqp_basic_ack_t *ack = frame.payload.method.decoded;
    long last = (long)ack->delivery_tag;
    for (long tag = ack->multiple ? *first_open : last; tag <= last; tag++) {
        found += !is_done[tag];
        is_done[tag] = 1;
    }
    while (is_done[*first_open]) ++*first_open;
    return found;
}

static double publish(amqp_connection_state_t conn, amqp_bytes_t queue, long count) {
    amqp_basic_properties_t persistent = {0};
    persistent._flags = AMQP_BASIC_DELIVERY_MODE_FLAG;
    persistent.delivery_mode = 2;
    char text[200];
    memset(text, 'x', sizeof text);
    amqp_bytes_t body = {.len = sizeof text, .bytes = text};
    char *is_done = calloc(count + 2, 1);
    long sent = 0, done = 0, first_open = 1;
    if (!is_done) fail("no memory");
    double began = now();
    while (done < count) {
        while (sent < count && sent - done < WINDOW) {
            if (amqp_basic_publish(conn, CHANNEL, amqp_empty_bytes, queue, 0, 0, &persistent, body))
                fail("cannot publish");
            sent++;
        }
        done += confirmed(conn, is_done, &first_open);
    }
    free(is_done);
    return count / (now() - began);
}

static double consume(amqp_connection_state_t conn, amqp_bytes_t queue, long count) {
    amqp_basic_qos(conn, CHANNEL, 0, WINDOW, 0);
    double began = now();
    amqp_basic_consume(conn, CHANNEL, queue, amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    check(amqp_get_rpc_reply(conn), "cannot consume");
    for (long taken = 1; taken <= count; taken++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(conn);
        check(amqp_consume_message(conn, &envelope, NULL, 0), "cannot take a message");
        if (taken % ACK_EVERY == 0 || taken == count)
            amqp_basic_ack(conn, CHANNEL, envelope.delivery_tag, 1);
        amqp_destroy_envelope(&envelope);
    }
    return count / (now() - began);
}

int main(int argc, char **argv) {
    if (argc != 4) fail("PORT VHOST COUNT");
    long count = atol(argv[3]);
    amqp_connection_state_t conn = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(conn);
    if (amqp_socket_open(socket, "127.0.0.1", atoi(argv[1]))) fail("cannot connect");
    check(amqp_login(conn, argv[2], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest"),
          "cannot sign in");
    amqp_channel_open(conn, CHANNEL);
    check(amqp_get_rpc_reply(conn), "cannot open a channel");
    amqp_confirm_select(conn, CHANNEL);
    amqp_table_entry_t type = {.key = amqp_cstring_bytes("x-queue-type")};
    type.value.kind = AMQP_FIELD_KIND_UTF8;
    type.value.value.bytes = amqp_cstring_bytes("quorum");
    amqp_table_t arguments = {.num_entries = 1, .entries = &type};
    amqp_bytes_t queue = amqp_cstring_bytes("limit");
    amqp_queue_declare(conn, CHANNEL, queue, 0, 1, 0, 0, arguments);
    check(amqp_get_rpc_reply(conn), "cannot declare the queue");
    double in = publish(conn, queue, count);
    double out = consume(conn, queue, count);
    printf("{\"publish_per_s\":%.1f,\"consume_per_s\":%.1f}\n", in, out);
    amqp_connection_close(conn, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(conn);
    return 0;
}
