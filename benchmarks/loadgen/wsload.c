/* wsload - a single-threaded epoll WebSocket load generator.
 *
 * Build:  gcc -O2 -Wall -o wsload wsload.c -lz
 *
 * Prints one line of JSON on standard output; see ../README.md.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* ---------------------------------------------------------------- options */

enum { M_ECHO, M_HANDSHAKE, M_IDLE, M_BROADCAST };
enum { V_FIRST, V_ALL, V_NONE };
enum { PAY_ASCII, PAY_UTF8, PAY_JSON };

static struct {
	const char *host, *path, *label;
	int port, connections, window, mode, verify, payload, prime, wbits;
	int connect_concurrency, spread, self;
	size_t size;
	double duration, warmup, connect_timeout;
	bool text, compress;
	char headers[4096];
	int pids[32], npids;
} opt = {
	.host = "127.0.0.1", .path = "/", .label = "", .port = 8000,
	.connections = 1, .window = 1, .mode = M_ECHO, .payload = -1,
	.prime = 0, .wbits = 15, .connect_concurrency = 64, .spread = -1,
	.self = 1, .size = 32, .duration = 3, .warmup = 1,
	.connect_timeout = 120, .text = false,
};

/* ------------------------------------------------------------ small tools */

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t rng_state = 0x9e3779b97f4a7c15ull;
static uint32_t rnd(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return (uint32_t)(rng_state >> 16);
}

static void *xmalloc(size_t n)
{
	void *p = malloc(n ? n : 1);
	if (!p) { fprintf(stderr, "wsload: out of memory\n"); exit(2); }
	return p;
}

static void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);
	if (!p) { fprintf(stderr, "wsload: out of memory\n"); exit(2); }
	return p;
}

static void *xrealloc(void *old, size_t n)
{
	void *p = realloc(old, n ? n : 1);
	if (!p) { fprintf(stderr, "wsload: out of memory\n"); exit(2); }
	return p;
}

static void die(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fprintf(stderr, "wsload: ");
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(2);
}

static double tv_s(struct timeval t) { return t.tv_sec + t.tv_usec / 1e6; }

static void self_cpu(double *user, double *sys)
{
	struct rusage r;
	getrusage(RUSAGE_SELF, &r);
	*user = tv_s(r.ru_utime);
	*sys = tv_s(r.ru_stime);
}

/* CPU seconds so far of the server's processes (--server-pid), all their threads.
 * The processes' own clocks: /proc/PID/stat counts in hundredths of a second. */
static double server_cpu(void)
{
	double total = 0;
	for (int i = 0; i < opt.npids; i++) {
		clockid_t id;
		struct timespec t;
		if (!clock_getcpuclockid(opt.pids[i], &id) && !clock_gettime(id, &t))
			total += t.tv_sec + t.tv_nsec / 1e9;
	}
	return total;
}

/* their resident memory, KiB */
static long server_rss_kib(void)
{
	long total = 0;
	for (int i = 0; i < opt.npids; i++) {
		char name[64], line[256];
		long kib = -1;
		snprintf(name, sizeof name, "/proc/%d/smaps_rollup", opt.pids[i]);
		FILE *f = fopen(name, "r");
		if (f) {
			while (fgets(line, sizeof line, f))
				if (sscanf(line, "Rss: %ld kB", &kib) == 1) break;
			fclose(f);
		}
		if (kib < 0) {
			snprintf(name, sizeof name, "/proc/%d/status", opt.pids[i]);
			f = fopen(name, "r");
			if (!f) continue;
			while (fgets(line, sizeof line, f))
				if (sscanf(line, "VmRSS: %ld kB", &kib) == 1) break;
			fclose(f);
		}
		if (kib > 0) total += kib;
	}
	return total;
}

/* ------------------------------------------------- SHA-1, base64 (handshake) */

static void sha1(const uint8_t *msg, size_t len, uint8_t out[20])
{
	uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
	size_t total = ((len + 8) / 64 + 1) * 64;
	uint8_t *m = xcalloc(1, total);
	memcpy(m, msg, len);
	m[len] = 0x80;
	for (int i = 0; i < 8; i++) m[total - 1 - i] = (uint8_t)((uint64_t)len * 8 >> (8 * i));
	for (size_t o = 0; o < total; o += 64) {
		uint32_t w[80];
		for (int i = 0; i < 16; i++)
			w[i] = (uint32_t)m[o + 4 * i] << 24 | m[o + 4 * i + 1] << 16 | m[o + 4 * i + 2] << 8 | m[o + 4 * i + 3];
		for (int i = 16; i < 80; i++) {
			uint32_t x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16];
			w[i] = x << 1 | x >> 31;
		}
		uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
		for (int i = 0; i < 80; i++) {
			uint32_t f, k;
			if (i < 20) { f = (b & c) | (~b & d); k = 0x5A827999; }
			else if (i < 40) { f = b ^ c ^ d; k = 0x6ED9EBA1; }
			else if (i < 60) { f = (b & c) | (b & d) | (c & d); k = 0x8F1BBCDC; }
			else { f = b ^ c ^ d; k = 0xCA62C1D6; }
			uint32_t t = (a << 5 | a >> 27) + f + e + k + w[i];
			e = d; d = c; c = b << 30 | b >> 2; b = a; a = t;
		}
		h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e;
	}
	free(m);
	for (int i = 0; i < 20; i++) out[i] = h[i / 4] >> (24 - 8 * (i % 4));
}

static void b64(const uint8_t *in, int n, char *out)
{
	static const char t[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	int o = 0;
	for (int i = 0; i < n; i += 3) {
		uint32_t v = in[i] << 16 | (i + 1 < n ? in[i + 1] << 8 : 0) | (i + 2 < n ? in[i + 2] : 0);
		out[o++] = t[v >> 18];
		out[o++] = t[v >> 12 & 63];
		out[o++] = i + 1 < n ? t[v >> 6 & 63] : '=';
		out[o++] = i + 2 < n ? t[v & 63] : '=';
	}
	out[o] = 0;
}

#define NKEYS 64
static char keys[NKEYS][32], accepts[NKEYS][40];

static void make_keys(void)
{
	for (int k = 0; k < NKEYS; k++) {
		uint8_t raw[16], digest[20];
		char buf[80];
		for (int i = 0; i < 16; i++) raw[i] = rnd();
		b64(raw, 16, keys[k]);
		snprintf(buf, sizeof buf, "%.31s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", keys[k]);
		sha1((uint8_t *)buf, strlen(buf), digest);
		b64(digest, 20, accepts[k]);
	}
}

/* --------------------------------------------------------------- histogram */

#define SUB 6
static uint64_t hist[64 << SUB], hist_n, hist_max;

static inline void hist_add(uint64_t ns)
{
	int e = 63 - __builtin_clzll(ns | (1u << SUB));
	int idx = ((e - SUB) << SUB) + (int)(ns >> (e - SUB));
	hist[idx]++;
	hist_n++;
	if (ns > hist_max) hist_max = ns;
}

static double hist_q(double q)
{
	if (!hist_n) return 0;
	uint64_t want = (uint64_t)(q * hist_n), seen = 0;
	if (want >= hist_n) want = hist_n - 1;
	for (size_t i = 0; i < sizeof hist / sizeof *hist; i++) {
		seen += hist[i];
		if (seen > want) {
			if (i < (2u << SUB)) return i / 1e3;
			int e = (int)(i >> SUB) - 1 + SUB;
			uint64_t m = (i & ((1u << SUB) - 1)) | (1u << SUB);
			double v = (double)(m << (e - SUB)) + (double)(1ull << (e - SUB)) / 2;
			if (v > hist_max) v = hist_max;
			return v / 1e3;
		}
	}
	return hist_max / 1e3;
}

/* ------------------------------------------------------------ frames to send */

/* A pool is a run of ready-made masked frames; a connection sends it round and
 * round. In a uniform pool all frames are the same. */
typedef struct {
	uint8_t *buf;
	size_t *off, total;
	int n;
	bool uniform;
	uint8_t **pay;      /* expected payload (uncompressed) of frame i, or [0] if uniform */
	size_t *paylen;
} Pool;

static size_t put_frame(uint8_t *o, int op, bool rsv1, const uint8_t *p, size_t n, uint32_t key)
{
	size_t h = 0;
	uint8_t k[4];
	o[h++] = 0x80 | (rsv1 ? 0x40 : 0) | op;
	if (n < 126) o[h++] = 0x80 | n;
	else if (n < 65536) { o[h++] = 0x80 | 126; o[h++] = n >> 8; o[h++] = n; }
	else { o[h++] = 0x80 | 127; for (int i = 7; i >= 0; i--) o[h++] = (uint64_t)n >> (8 * i); }
	memcpy(k, &key, 4);
	memcpy(o + h, k, 4);
	h += 4;
	for (size_t i = 0; i < n; i++) o[h + i] = p[i] ^ k[i & 3];
	return h + n;
}

static uint32_t mask_key(void)
{
	uint32_t k;
	do k = rnd() ^ rnd() << 7; while (!(k & 0xff) || !(k >> 8 & 0xff) || !(k >> 16 & 0xff) || !(k >> 24));
	return k;
}

static void fill_payload(uint8_t *p, size_t n, unsigned seed)
{
	if (!opt.text) {
		for (size_t i = 0; i < n; i++) p[i] = rnd();
	} else if (opt.payload == PAY_UTF8) {
		/* a mix of 1-, 2-, 3- and 4-byte characters, padded with ASCII */
		static const char *u[] = {"a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xd0\x96", "z ", "\xe6\xbc\xa2"};
		size_t i = 0;
		while (i < n) {
			const char *s = u[rnd() % 7];
			size_t l = strlen(s);
			if (i + l > n) { p[i++] = '.'; continue; }
			memcpy(p + i, s, l);
			i += l;
		}
	} else {
		for (size_t i = 0; i < n; i++) p[i] = 33 + (i * 7 + seed * 13 + i / 94 + 1) % 94;
	}
}

/* a realistic JSON document of exactly n bytes (n >= 64) */
static void fill_json(uint8_t *out, size_t n)
{
	static const char *sym[] = {"BTC-USD", "ETH-USD", "SOL-USD", "AAPL", "MSFT", "EURUSD", "GBPUSD", "NVDA"};
	static const char *side[] = {"buy", "sell"};
	static const char *who[] = {"alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"};
	static const char *word[] = {"limit ", "order ", "filled ", "partial ", "market ", "price ", "above ", "below ", "the ", "target ", "by ", "client "};
	char *b = xmalloc(n + 512);
	size_t o = snprintf(b, n + 512, "{\"type\":\"update\",\"channel\":\"trades\",\"seq\":%u,\"items\":[", rnd());
	bool first = true;
	while (o + 240 < n) {
		o += snprintf(b + o, n + 512 - o, "%s{\"id\":%u,\"symbol\":\"%s\",\"side\":\"%s\",\"price\":%u.%02u,\"size\":%u.%04u,\"user\":\"%s\",\"ts\":17%08u%03u}",
			first ? "" : ",", rnd(), sym[rnd() & 7], side[rnd() & 1], rnd() % 90000, rnd() % 100, rnd() % 10, rnd() % 10000,
			who[rnd() & 7], rnd() % 100000000, rnd() % 1000);
		first = false;
	}
	o += snprintf(b + o, n + 512 - o, "],\"note\":\"");
	while (o + 2 < n) {
		const char *w = word[rnd() % 12];
		for (; *w && o + 2 < n; w++) b[o++] = *w;
	}
	if (o + 2 > n) die("--size too small for a JSON payload (use 64 or more)");
	b[o++] = '"';
	b[o++] = '}';
	memcpy(out, b, n);
	free(b);
}

static Pool *uniform_pool(unsigned seed)
{
	Pool *p = xmalloc(sizeof *p);
	size_t flen = opt.size + 14;
	long want = opt.window > 1 ? 2L * opt.window : 1;
	while (want > 1 && want * flen > (4u << 20)) want--;
	p->n = want;
	p->uniform = true;
	p->pay = xmalloc(sizeof *p->pay);
	p->paylen = xmalloc(sizeof *p->paylen);
	p->pay[0] = xmalloc(opt.size);
	p->paylen[0] = opt.size;
	fill_payload(p->pay[0], opt.size, seed);
	p->buf = xmalloc(want * flen);
	p->off = xmalloc((want + 1) * sizeof *p->off);
	size_t one = put_frame(p->buf, opt.text ? 1 : 2, false, p->pay[0], opt.size, mask_key());
	for (long i = 0; i <= want; i++) p->off[i] = i * one;
	for (long i = 1; i < want; i++) memcpy(p->buf + i * one, p->buf, one);
	p->total = want * one;
	return p;
}

#define NDOCS 64
static Pool *doc_pool(bool deflate_it, uint8_t **docs)
{
	Pool *p = xmalloc(sizeof *p);
	int reps = 1;
	while (NDOCS * reps < 2 * opt.window) reps++;
	p->n = NDOCS * reps;
	p->uniform = false;
	p->pay = xmalloc(p->n * sizeof *p->pay);
	p->paylen = xmalloc(p->n * sizeof *p->paylen);
	p->off = xmalloc((p->n + 1) * sizeof *p->off);
	p->buf = xmalloc((size_t)p->n * (opt.size + opt.size / 8 + 128));
	p->off[0] = 0;
	for (int i = 0; i < p->n; i++) {
		uint8_t *d = docs[i % NDOCS];
		p->pay[i] = d;
		p->paylen[i] = opt.size;
		size_t n;
		if (deflate_it) {
			z_stream z = {0};
			size_t cap = opt.size + opt.size / 8 + 64;
			uint8_t *tmp = xmalloc(cap);
			if (deflateInit2(&z, 6, Z_DEFLATED, -opt.wbits, 8, Z_DEFAULT_STRATEGY) != Z_OK) die("deflateInit2 failed");
			z.next_in = d; z.avail_in = opt.size;
			z.next_out = tmp; z.avail_out = cap;
			deflate(&z, Z_SYNC_FLUSH);
			size_t got = cap - z.avail_out;
			deflateEnd(&z);
			n = put_frame(p->buf + p->off[i], opt.text ? 1 : 2, true, tmp, got - 4, mask_key());
			free(tmp);
		} else
			n = put_frame(p->buf + p->off[i], opt.text ? 1 : 2, false, d, opt.size, mask_key());
		p->off[i + 1] = p->off[i] + n;
	}
	p->total = p->off[p->n];
	return p;
}

static Pool *docs_plain, *docs_deflated;

/* -------------------------------------------------------------- connections */

enum { S_NEW, S_CONNECTING, S_HS, S_OPEN, S_CLOSING, S_DEAD };

typedef struct {
	int fd, idx, key;
	uint8_t state;
	bool want_out, deflated, is_sender;
	/* sending */
	Pool *pool;
	size_t tx_pos, tx_want;
	int tx_next;
	uint8_t ctl_out[160];
	int ctl_len;
	/* send times of the messages in flight */
	uint64_t *ts;
	unsigned ts_head, ts_tail;
	uint64_t t_start;
	/* receiving: frame header, frame, message */
	uint8_t hdr[14], hlen, hneed;
	bool in_payload, fin, rsv1, in_msg, mrsv1, bad;
	uint8_t op, mop;
	uint64_t plen, pgot, mlen, zlen;
	uint8_t ctl_in[125];
	int rx_idx;
	uint64_t nrecv, n_measured;
	int prime_left;
	uint8_t *zbuf;
	size_t zcap;
	z_stream *zs;
	/* handshake response */
	char *hbuf;
	int hblen;
} Conn;

static Conn *conns;
static int nconns, ep;
static int n_open, n_opening, n_dead, next_to_open;
static uint64_t src_counter;
static struct sockaddr_in server_addr;

static struct { uint64_t connect, handshake, accept, eof, io, frame, opcode, length, payload, timeout; } err;
static char first_error[256];
static int phase;               /* 0 opening, 1 priming, 2 warm-up, 3 measuring, 4 done */
static uint64_t m_msgs, m_bytes, m_wire, m_deflated, m_hs, m_pings;
static uint64_t bc_sent, bc_delivered, bc_last;
static uint64_t bc_ts[1 << 16];
static int primed;
static int n_deflated;

static uint64_t errors_total(void)
{
	return err.connect + err.handshake + err.accept + err.eof + err.io + err.frame + err.opcode + err.length + err.payload + err.timeout;
}

static void note(const char *fmt, ...)
{
	if (first_error[0]) return;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(first_error, sizeof first_error, fmt, ap);
	va_end(ap);
	for (char *p = first_error; *p; p++)
		if (*p == '"' || *p == '\\' || (unsigned char)*p < 32 || (unsigned char)*p > 126) *p = ' ';
}

static void set_events(Conn *c, bool out)
{
	if (c->want_out == out) return;
	struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
	epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
	c->want_out = out;
}

static void conn_free_rx(Conn *c)
{
	if (c->zs) { inflateEnd(c->zs); free(c->zs); c->zs = NULL; }
	free(c->zbuf); c->zbuf = NULL; c->zcap = 0;
	free(c->hbuf); c->hbuf = NULL;
}

static void conn_start(Conn *c);

static void conn_close(Conn *c, bool failed)
{
	if (c->fd >= 0) close(c->fd);
	c->fd = -1;
	conn_free_rx(c);
	if (c->state == S_OPEN) n_open--;
	else if (c->state == S_CONNECTING || c->state == S_HS) n_opening--;
	c->state = S_DEAD;
	if (opt.mode == M_HANDSHAKE && phase < 4) {
		if (failed && errors_total() > 10000) { n_dead++; return; }
		conn_start(c);
	} else
		n_dead++;
}

static void conn_start(Conn *c)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
	if (fd < 0) { err.connect++; note("socket: %s", strerror(errno)); c->fd = -1; c->state = S_DEAD; n_dead++; return; }
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (opt.spread > 1) {
		struct sockaddr_in a = {.sin_family = AF_INET};
		unsigned k = src_counter++ % opt.spread;
		a.sin_addr.s_addr = htonl(0x7f000001 + (k / 250) * 256 + k % 250);
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
		if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0) note("bind: %s", strerror(errno));
	}
	c->fd = fd;
	c->state = S_CONNECTING;
	c->tx_pos = c->tx_want = 0;
	c->tx_next = 0;
	c->ctl_len = 0;
	c->ts_head = c->ts_tail = 0;
	c->hlen = 0; c->hneed = 2;
	c->in_payload = c->in_msg = c->bad = c->deflated = false;
	c->mlen = c->zlen = 0;
	c->nrecv = 0;
	c->rx_idx = 0;
	c->key = rnd() % NKEYS;
	c->hblen = 0;
	c->t_start = now_ns();
	n_opening++;
	if (connect(fd, (struct sockaddr *)&server_addr, sizeof server_addr) < 0 && errno != EINPROGRESS) {
		err.connect++;
		note("connect: %s", strerror(errno));
		conn_close(c, true);
		return;
	}
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
	c->want_out = true;
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
}

static bool flush_tx(Conn *c)
{
	for (;;) {
		if (!c->tx_want) {
			if (!c->ctl_len) break;
			ssize_t k = send(c->fd, c->ctl_out, c->ctl_len, MSG_NOSIGNAL);
			if (k < 0 && errno == EAGAIN) { set_events(c, true); return true; }
			if (k < 0) goto fail;
			if (k < c->ctl_len) { memmove(c->ctl_out, c->ctl_out + k, c->ctl_len - k); c->ctl_len -= k; continue; }
			c->ctl_len = 0;
			break;
		}
		size_t n = c->pool->total - c->tx_pos;
		if (n > c->tx_want) n = c->tx_want;
		ssize_t k = send(c->fd, c->pool->buf + c->tx_pos, n, MSG_NOSIGNAL);
		if (k < 0) {
			if (errno == EAGAIN) { set_events(c, true); return true; }
			if (errno == EINTR) continue;
			goto fail;
		}
		c->tx_pos += k;
		c->tx_want -= k;
		if (c->tx_pos == c->pool->total) c->tx_pos = 0;
		if (!c->tx_want && c->pool->uniform) { c->tx_pos = 0; c->tx_next = 0; }
	}
	set_events(c, false);
	return true;
fail:
	err.io++;
	note("send: %s", strerror(errno));
	conn_close(c, true);
	return false;
}

/* queue n messages and send as much as the socket takes */
static bool send_messages(Conn *c, int n, uint64_t t)
{
	for (int i = 0; i < n; i++) {
		c->tx_want += c->pool->off[c->tx_next + 1] - c->pool->off[c->tx_next];
		if (++c->tx_next == c->pool->n) c->tx_next = 0;
		if (c->ts) { c->ts[c->ts_head % opt.window] = t; c->ts_head++; }
	}
	if (c->want_out) return true;
	return flush_tx(c);
}

static void send_ctl(Conn *c, int op, const uint8_t *p, int n)
{
	if (c->ctl_len) return;
	c->ctl_len = put_frame(c->ctl_out, op, false, p, n, mask_key());
	if (!c->want_out) flush_tx(c);
}

static int check_inflated(Conn *c)
{
	/* returns 0 ok, 1 length differs, 2 bytes differ */
	static uint8_t *out;
	static size_t cap;
	size_t want = c->pool->paylen[c->rx_idx];
	if (cap < want + 64) { cap = want + 64; out = xrealloc(out, cap); }
	if (!c->zs) {
		c->zs = xcalloc(1, sizeof *c->zs);
		if (inflateInit2(c->zs, -15) != Z_OK) die("inflateInit2 failed");
	}
	z_stream *z = c->zs;
	z->next_out = out; z->avail_out = cap;
	z->next_in = c->zbuf; z->avail_in = c->zlen;
	int r = inflate(z, Z_SYNC_FLUSH);
	if (r != Z_OK && r != Z_BUF_ERROR && r != Z_STREAM_END) return 2;
	uint8_t tail[4] = {0, 0, 0xff, 0xff};
	if (r != Z_STREAM_END) {
		z->next_in = tail; z->avail_in = 4;
		inflate(z, Z_SYNC_FLUSH);
	} else
		inflateReset(z);
	size_t got = cap - z->avail_out;
	if (got != want) return 1;
	return memcmp(out, c->pool->pay[c->rx_idx], want) ? 2 : 0;
}

/* one whole message has arrived; returns false if the connection went away */
static bool message_done(Conn *c, uint64_t t, int *done)
{
	bool checked = opt.verify == V_ALL || (opt.verify == V_FIRST && c->nrecv == 0);
	if (c->mop != (opt.text ? 1 : 2)) { err.opcode++; note("echo came back with opcode %d", c->mop); }
	if (c->mrsv1) {
		if (!c->deflated) { err.frame++; note("RSV1 set but permessage-deflate was not negotiated"); }
		else if (checked) {
			int r = check_inflated(c);
			if (r == 1) { err.length++; note("inflated echo has the wrong length"); }
			if (r == 2) { err.payload++; note("inflated echo has the wrong bytes"); }
		} else if (c->mlen == 0) { err.length++; note("empty compressed echo"); }
		if (phase == 3) m_deflated++;
	} else {
		if (c->mlen != c->pool->paylen[c->pool->uniform ? 0 : c->rx_idx]) {
			err.length++;
			note("echo has %llu bytes, not %zu", (unsigned long long)c->mlen, c->pool->paylen[c->pool->uniform ? 0 : c->rx_idx]);
		} else if (c->bad) { err.payload++; note("echo has the wrong bytes"); }
	}
	if (opt.verify != V_ALL && checked && c->zs) { inflateEnd(c->zs); free(c->zs); c->zs = NULL; free(c->zbuf); c->zbuf = NULL; c->zcap = 0; }
	c->nrecv++;
	c->bad = false;
	if (++c->rx_idx == c->pool->n) c->rx_idx = 0;
	if (opt.mode == M_BROADCAST) {
		uint64_t seq = c->nrecv - 1;
		bc_delivered++;
		bc_last = t;
		if (phase == 3) { m_msgs++; c->n_measured++; m_bytes += c->pool->paylen[0]; hist_add(t - bc_ts[seq & 0xffff]); }
		return true;
	}
	uint64_t sent = c->ts[c->ts_tail % opt.window];
	c->ts_tail++;
	if (phase == 3) {
		m_msgs++;
		c->n_measured++;
		m_bytes += c->pool->paylen[c->pool->uniform ? 0 : c->rx_idx];
		hist_add(t - sent);
	}
	(*done)++;
	return true;
}

static bool frame_done(Conn *c, uint64_t t, int *done)
{
	c->in_payload = false;
	c->hlen = 0;
	c->hneed = 2;
	if (c->op >= 8) {
		if (c->op == 9) { m_pings++; send_ctl(c, 10, c->ctl_in, c->plen); return c->state != S_DEAD; }
		if (c->op == 10) return true;
		/* close frame */
		if (c->state == S_CLOSING) { conn_close(c, false); return false; }
		if (phase < 4) {
			err.eof++;
			note("server sent close %d after %llu messages", c->plen >= 2 ? c->ctl_in[0] << 8 | c->ctl_in[1] : 0, (unsigned long long)c->nrecv);
		}
		conn_close(c, true);
		return false;
	}
	if (!c->fin) return true;
	c->in_msg = false;
	bool ok = message_done(c, t, done);
	c->mlen = c->zlen = 0;
	return ok;
}

static bool frame_header(Conn *c)
{
	uint8_t *h = c->hdr;
	c->fin = h[0] & 0x80;
	c->rsv1 = h[0] & 0x40;
	c->op = h[0] & 15;
	if (h[0] & 0x30) { err.frame++; note("RSV2 or RSV3 set"); return false; }
	int l = h[1] & 127;
	if (l < 126) c->plen = l;
	else if (l == 126) c->plen = h[2] << 8 | h[3];
	else { c->plen = 0; for (int i = 0; i < 8; i++) c->plen = c->plen << 8 | h[2 + i]; }
	if (c->op >= 8) {
		if (!c->fin || c->plen > 125 || c->rsv1) { err.frame++; note("bad control frame"); return false; }
	} else if (c->op == 0) {
		if (!c->in_msg || c->rsv1) { err.frame++; note("bad continuation frame"); return false; }
	} else {
		if (c->in_msg || c->op > 2) { err.frame++; note("unexpected opcode %d", c->op); return false; }
		c->in_msg = true;
		c->mop = c->op;
		c->mrsv1 = c->rsv1;
		c->mlen = c->zlen = 0;
	}
	c->pgot = 0;
	c->in_payload = true;
	return true;
}

/* returns false if the connection went away */
static bool feed(Conn *c, uint8_t *b, size_t n, uint64_t t)
{
	int done = 0;
	while (n) {
		if (!c->in_payload) {
			while (n && c->hlen < c->hneed) { c->hdr[c->hlen++] = *b++; n--; }
			if (c->hlen == 2 && c->hneed == 2) {
				if (c->hdr[1] & 0x80) { err.frame++; note("server frame is masked"); conn_close(c, true); return false; }
				int l = c->hdr[1] & 127;
				c->hneed = l < 126 ? 2 : l == 126 ? 4 : 10;
			}
			if (c->hlen < c->hneed) continue;
			if (!frame_header(c)) { conn_close(c, true); return false; }
			if (!c->plen && !frame_done(c, t, &done)) return false;
			continue;
		}
		size_t k = c->plen - c->pgot;
		if (k > n) k = n;
		if (c->op >= 8) memcpy(c->ctl_in + c->pgot, b, k);
		else {
			if (opt.verify == V_ALL || (opt.verify == V_FIRST && c->nrecv == 0)) {
				if (c->mrsv1) {
					if (c->zlen + k > c->zcap) { c->zcap = (c->zlen + k) * 2; c->zbuf = xrealloc(c->zbuf, c->zcap); }
					memcpy(c->zbuf + c->zlen, b, k);
					c->zlen += k;
				} else {
					int i = c->pool->uniform ? 0 : c->rx_idx;
					if (c->mlen + k > c->pool->paylen[i] || memcmp(c->pool->pay[i] + c->mlen, b, k)) c->bad = true;
				}
			}
			c->mlen += k;
		}
		c->pgot += k;
		b += k;
		n -= k;
		if (c->pgot == c->plen && !frame_done(c, t, &done)) return false;
	}
	if (done) {
		if (phase == 1) {
			c->prime_left -= done;
			if (c->prime_left <= 0) primed++;
			else return send_messages(c, 1, now_ns());
		} else if (opt.mode == M_ECHO && (phase == 2 || phase == 3))
			return send_messages(c, done, now_ns());
	}
	return true;
}

static void conn_opened(Conn *c)
{
	n_opening--;
	n_open++;
	c->state = S_OPEN;
	set_events(c, false);
	if (opt.compress) {
		c->pool = c->deflated ? docs_deflated : docs_plain;
		if (c->deflated) n_deflated++;
	} else if (docs_plain)
		c->pool = docs_plain;
	if (c->pool && !c->pool->uniform && opt.mode != M_BROADCAST) {
		int start = (c->idx * 7) % c->pool->n;
		c->tx_next = c->rx_idx = start;
		c->tx_pos = c->pool->off[start];
	}
	if (opt.mode == M_HANDSHAKE) {
		uint64_t t = now_ns();
		if (phase == 3) { m_hs++; hist_add(t - c->t_start); }
		n_open--;
		c->state = S_CLOSING;
		uint8_t code[2] = {1000 >> 8, 1000 & 255};
		send_ctl(c, 8, code, 2);
	}
}

static const char *header(const char *resp, const char *name, char *out, size_t cap)
{
	size_t l = strlen(name);
	for (const char *p = strstr(resp, "\r\n"); p && p[2]; p = strstr(p + 2, "\r\n")) {
		const char *q = p + 2;
		if (strncasecmp(q, name, l) || q[l] != ':') continue;
		q += l + 1;
		while (*q == ' ' || *q == '\t') q++;
		const char *e = strstr(q, "\r\n");
		size_t n = e ? (size_t)(e - q) : strlen(q);
		while (n && (q[n - 1] == ' ' || q[n - 1] == '\t')) n--;
		if (n >= cap) n = cap - 1;
		memcpy(out, q, n);
		out[n] = 0;
		return out;
	}
	return NULL;
}

static void on_connected(Conn *c)
{
	int e = 0;
	socklen_t l = sizeof e;
	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &l);
	if (e) { err.connect++; note("connect: %s", strerror(e)); conn_close(c, true); return; }
	char req[8192];
	int n = snprintf(req, sizeof req,
		"GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s%s\r\n",
		opt.path, opt.host, opt.port, keys[c->key],
		opt.compress ? "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" : "", opt.headers);
	if (send(c->fd, req, n, MSG_NOSIGNAL) != n) { err.io++; note("send of request: %s", strerror(errno)); conn_close(c, true); return; }
	c->state = S_HS;
	c->hbuf = xmalloc(8193);
	c->hblen = 0;
	set_events(c, false);
}

static uint8_t rbuf[256 * 1024];

static void on_handshake_data(Conn *c, ssize_t n, uint64_t t)
{
	if (c->hblen + n > 8192) { 
		/* frames may follow the response in the same read; keep only what fits the head */
		if (c->hblen == 0 && memmem(rbuf, n, "\r\n\r\n", 4)) { free(c->hbuf); c->hbuf = xmalloc(n + 1); }
		else { err.handshake++; note("response head too long"); conn_close(c, true); return; }
	}
	memcpy(c->hbuf + c->hblen, rbuf, n);
	c->hblen += n;
	c->hbuf[c->hblen] = 0;
	char *end = memmem(c->hbuf, c->hblen, "\r\n\r\n", 4);
	if (!end) return;
	end[2] = 0;
	char v[512];
	if (strncmp(c->hbuf, "HTTP/1.1 101", 12)) { err.handshake++; note("upgrade refused: %.60s", c->hbuf); conn_close(c, true); return; }
	if (!header(c->hbuf, "Sec-WebSocket-Accept", v, sizeof v) || strcmp(v, accepts[c->key])) { err.accept++; note("wrong Sec-WebSocket-Accept"); conn_close(c, true); return; }
	if (header(c->hbuf, "Sec-WebSocket-Extensions", v, sizeof v)) {
		if (!opt.compress || strncmp(v, "permessage-deflate", 18)) { err.handshake++; note("unoffered extension: %.60s", v); conn_close(c, true); return; }
		c->deflated = true;
		char *w = strstr(v, "client_max_window_bits=");
		if (w) {
			w += strlen("client_max_window_bits=");
			if (*w == '"') w++;
			int bits = atoi(w);
			if (bits < opt.wbits && opt.size > (1u << bits)) { err.handshake++; note("server wants client_max_window_bits=%d: use --wbits %d", bits, bits); }
		}
	}
	size_t rest = c->hblen - (end + 4 - c->hbuf);
	uint8_t *left = NULL;
	if (rest) { left = xmalloc(rest); memcpy(left, end + 4, rest); }
	free(c->hbuf);
	c->hbuf = NULL;
	conn_opened(c);
	if (left) { if (c->state == S_OPEN || c->state == S_CLOSING) feed(c, left, rest, t); free(left); }
}

static void on_event(Conn *c, uint32_t ev)
{
	if (c->fd < 0) return;
	if (c->state == S_CONNECTING) {
		if (ev & (EPOLLOUT | EPOLLERR | EPOLLHUP)) on_connected(c);
		return;
	}
	if ((ev & EPOLLOUT) && c->want_out && !flush_tx(c)) return;
	if (!(ev & (EPOLLIN | EPOLLERR | EPOLLHUP))) return;
	ssize_t n = recv(c->fd, rbuf, sizeof rbuf, 0);
	if (n < 0) {
		if (errno == EAGAIN || errno == EINTR) return;
		if (c->state == S_CLOSING) { conn_close(c, false); return; }
		err.io++;
		note("recv: %s", strerror(errno));
		conn_close(c, true);
		return;
	}
	if (n == 0) {
		if (c->state == S_CLOSING) { conn_close(c, false); return; }
		err.eof++;
		note("server closed the connection %s", c->state == S_HS ? "during the handshake" : "while open");
		conn_close(c, true);
		return;
	}
	if (phase == 3) m_wire += n;
	uint64_t t = now_ns();
	if (c->state == S_HS) on_handshake_data(c, n, t);
	else feed(c, rbuf, n, t);
}

static void poll_once(uint64_t until)
{
	struct epoll_event ev[512];
	uint64_t t = now_ns();
	int ms = until > t ? (int)((until - t + 999999) / 1000000) : 0;
	if (ms > 100) ms = 100;
	int n = epoll_wait(ep, ev, 512, ms);
	for (int i = 0; i < n; i++) on_event(ev[i].data.ptr, ev[i].events);
}

/* opening stage: keep at most connect_concurrency handshakes under way */
static void open_all(void)
{
	uint64_t limit = now_ns() + (uint64_t)(opt.connect_timeout * 1e9);
	while (n_open + n_dead < nconns) {
		while (next_to_open < nconns && n_opening < opt.connect_concurrency) conn_start(&conns[next_to_open++]);
		poll_once(limit);
		if (now_ns() > limit || n_dead > 100 + nconns / 10) {
			err.timeout += nconns - n_open - n_dead;
			note("only %d of %d connections opened", n_open, nconns);
			break;
		}
	}
	for (int i = 0; i < nconns; i++)
		if (conns[i].state != S_OPEN && conns[i].fd >= 0) conn_close(&conns[i], true);
}

/* ---------------------------------------------------------------------- main */

static void usage(void)
{
	fprintf(stderr,
		"usage: wsload [--host H] --port P [--path /x] [--connections N] [--size BYTES] [--window W]\n"
		"  [--duration S] [--warmup S] [--binary|--text] [--payload ascii|utf8|json] [--compress] [--wbits N]\n"
		"  [--mode echo|handshake|idle|broadcast-receive] [--prime M] [--verify first|all|none]\n"
		"  [--server-pid PID[,PID...]] [--connect-concurrency N] [--connect-timeout S] [--spread N]\n"
		"  [--header 'Name: value'] [--no-self] [--label TEXT]\n");
	exit(2);
}

static void parse(int argc, char **argv)
{
	static struct option lo[] = {
		{"host", 1, 0, 'h'}, {"port", 1, 0, 'p'}, {"path", 1, 0, 'P'}, {"connections", 1, 0, 'c'}, {"size", 1, 0, 's'},
		{"window", 1, 0, 'w'}, {"duration", 1, 0, 'd'}, {"warmup", 1, 0, 'u'}, {"binary", 0, 0, 'b'}, {"text", 0, 0, 't'},
		{"payload", 1, 0, 'y'}, {"compress", 0, 0, 'z'}, {"wbits", 1, 0, 'W'}, {"mode", 1, 0, 'm'}, {"prime", 1, 0, 'M'},
		{"verify", 1, 0, 'v'}, {"server-pid", 1, 0, 'i'}, {"connect-concurrency", 1, 0, 'C'}, {"connect-timeout", 1, 0, 'T'},
		{"spread", 1, 0, 'S'}, {"header", 1, 0, 'H'}, {"no-self", 0, 0, 'n'}, {"label", 1, 0, 'l'}, {0, 0, 0, 0}};
	int o;
	bool kind = false;
	while ((o = getopt_long(argc, argv, "", lo, NULL)) != -1) switch (o) {
		case 'h': opt.host = optarg; break;
		case 'p': opt.port = atoi(optarg); break;
		case 'P': opt.path = optarg; break;
		case 'c': opt.connections = atoi(optarg); break;
		case 's': opt.size = strtoull(optarg, NULL, 10); break;
		case 'w': opt.window = atoi(optarg); break;
		case 'd': opt.duration = atof(optarg); break;
		case 'u': opt.warmup = atof(optarg); break;
		case 'b': opt.text = false; kind = true; break;
		case 't': opt.text = true; kind = true; break;
		case 'y': opt.payload = !strcmp(optarg, "json") ? PAY_JSON : !strcmp(optarg, "utf8") ? PAY_UTF8 : PAY_ASCII; break;
		case 'z': opt.compress = true; break;
		case 'W': opt.wbits = atoi(optarg); break;
		case 'm':
			if (!strcmp(optarg, "echo")) opt.mode = M_ECHO;
			else if (!strcmp(optarg, "handshake")) opt.mode = M_HANDSHAKE;
			else if (!strcmp(optarg, "idle")) opt.mode = M_IDLE;
			else if (!strncmp(optarg, "broadcast", 9)) opt.mode = M_BROADCAST;
			else usage();
			break;
		case 'M': opt.prime = atoi(optarg); break;
		case 'v': opt.verify = !strcmp(optarg, "all") ? V_ALL : !strcmp(optarg, "none") ? V_NONE : V_FIRST; break;
		case 'i': for (char *p = strtok(optarg, ","); p && opt.npids < 32; p = strtok(NULL, ",")) opt.pids[opt.npids++] = atoi(p); break;
		case 'C': opt.connect_concurrency = atoi(optarg); break;
		case 'T': opt.connect_timeout = atof(optarg); break;
		case 'S': opt.spread = atoi(optarg); break;
		case 'H': if (strlen(opt.headers) + strlen(optarg) + 3 < sizeof opt.headers) { strcat(opt.headers, optarg); strcat(opt.headers, "\r\n"); } break;
		case 'n': opt.self = 0; break;
		case 'l': opt.label = optarg; break;
		default: usage();
	}
	if (optind < argc || opt.connections < 1 || opt.window < 1 || opt.wbits < 9 || opt.wbits > 15) usage();
	if (opt.compress && opt.payload < 0) opt.payload = PAY_JSON;
	if (opt.compress && opt.size < 64) opt.size = 1024;
	if (opt.payload >= 0 && !kind) opt.text = true;
	if (opt.payload < 0) opt.payload = PAY_ASCII;
	if (opt.spread < 0) opt.spread = opt.mode == M_HANDSHAKE ? 32 : opt.connections > 20000 ? opt.connections / 20000 + 1 : 1;
}

static int by_count(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void print_json(const char *mode, double secs, double cu, double cs, double sc, long r0, long r1, long r2)
{
	double per = secs > 0 ? 1 / secs : 0;
	uint64_t n = opt.mode == M_HANDSHAKE ? m_hs : m_msgs;
	printf("{\"label\":\"%s\",\"mode\":\"%s\",\"connections\":%d,\"open\":%d,\"size\":%zu,\"window\":%d,\"type\":\"%s\",\"compress\":%s,"
		"\"deflate_negotiated\":%d,\"seconds\":%.3f,\"count\":%llu,\"%s\":%.1f,\"mb_per_s\":%.3f,\"wire_in_mb_per_s\":%.3f,\"compressed_echoes\":%llu,",
		opt.label, mode, nconns, n_open, opt.size, opt.window, opt.text ? "text" : "binary", opt.compress ? "true" : "false",
		n_deflated, secs, (unsigned long long)n,
		opt.mode == M_HANDSHAKE ? "handshakes_per_s" : opt.mode == M_BROADCAST ? "deliveries_per_s" : "messages_per_s",
		n * per, m_bytes * per / 1e6, m_wire * per / 1e6, (unsigned long long)m_deflated);
	printf("\"lat_us\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p99.9\":%.1f,\"max\":%.1f},",
		hist_q(.5), hist_q(.9), hist_q(.99), hist_q(.999), hist_max / 1e3);
	if (opt.mode == M_ECHO || opt.mode == M_BROADCAST) {
		/* how evenly the server served its connections */
		uint64_t *v = xmalloc(nconns * sizeof *v);
		int none = 0;
		for (int i = 0; i < nconns; i++) { v[i] = conns[i].n_measured; none += !v[i]; }
		qsort(v, nconns, sizeof *v, by_count);
		printf("\"per_conn\":{\"min\":%llu,\"p10\":%llu,\"p50\":%llu,\"p90\":%llu,\"max\":%llu,\"none\":%d},",
			(unsigned long long)v[0], (unsigned long long)v[nconns / 10], (unsigned long long)v[nconns / 2],
			(unsigned long long)v[nconns * 9 / 10], (unsigned long long)v[nconns - 1], none);
		free(v);
	}
	printf("\"client_cpu_s\":{\"user\":%.3f,\"sys\":%.3f},\"client_cpu_share\":%.3f,", cu, cs, (cu + cs) * per);
	if (opt.npids)
		printf("\"server_cpu_s\":%.4f,\"server_cpu_share\":%.3f,\"server_rss_kib\":{\"before\":%ld,\"open\":%ld,\"end\":%ld},\"rss_bytes_per_conn\":%.0f,",
			sc, sc * per, r0, r1, r2, n_open ? (r1 - r0) * 1024.0 / n_open : 0.0);
	printf("\"pings\":%llu,\"errors\":%llu,\"error_kinds\":{\"connect\":%llu,\"handshake\":%llu,\"accept\":%llu,\"eof\":%llu,\"io\":%llu,\"frame\":%llu,"
		"\"opcode\":%llu,\"length\":%llu,\"payload\":%llu,\"timeout\":%llu},\"first_error\":\"%s\"}\n",
		(unsigned long long)m_pings, (unsigned long long)errors_total(),
		(unsigned long long)err.connect, (unsigned long long)err.handshake, (unsigned long long)err.accept, (unsigned long long)err.eof,
		(unsigned long long)err.io, (unsigned long long)err.frame, (unsigned long long)err.opcode, (unsigned long long)err.length,
		(unsigned long long)err.payload, (unsigned long long)err.timeout, first_error);
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	rng_state ^= (uint64_t)ts.tv_nsec << 20 ^ (uint64_t)getpid();
	for (int i = 0; i < 16; i++) rnd();

	static const char *names[] = {"echo", "handshake", "idle", "broadcast-receive"};
	nconns = opt.connections + (opt.mode == M_BROADCAST ? 1 : 0);
	struct rlimit rl;
	getrlimit(RLIMIT_NOFILE, &rl);
	rlim_t need = nconns + 64;
	if (rl.rlim_cur < need) {
		rl.rlim_cur = need;
		if (rl.rlim_max < need) rl.rlim_max = need;
		if (setrlimit(RLIMIT_NOFILE, &rl)) fprintf(stderr, "wsload: cannot raise the open-file limit to %lu\n", (unsigned long)need);
	}
	server_addr.sin_family = AF_INET;
	server_addr.sin_port = htons(opt.port);
	if (inet_pton(AF_INET, opt.host, &server_addr.sin_addr) != 1) die("--host must be an IPv4 address");
	ep = epoll_create1(EPOLL_CLOEXEC);
	make_keys();

	if (opt.payload == PAY_JSON) {
		static uint8_t *docs[NDOCS];
		for (int i = 0; i < NDOCS; i++) { docs[i] = xmalloc(opt.size); fill_json(docs[i], opt.size); }
		docs_plain = doc_pool(false, docs);
		if (opt.compress) docs_deflated = doc_pool(true, docs);
	}
	conns = xcalloc(nconns, sizeof *conns);
	Pool *shared = NULL;
	for (int i = 0; i < nconns; i++) {
		Conn *c = &conns[i];
		c->fd = -1;
		c->idx = i;
		if (opt.mode == M_HANDSHAKE) continue;
		if (opt.mode == M_BROADCAST || (opt.mode == M_IDLE && opt.connections > 2000)) {
			if (!shared) shared = docs_plain ? docs_plain : uniform_pool(0);
			c->pool = shared;
		} else c->pool = docs_plain ? docs_plain : uniform_pool(i);
		if (opt.mode != M_BROADCAST) c->ts = xcalloc(opt.window, sizeof *c->ts);
	}

	double u0, s0, u1, s1, sc0 = 0, sc1 = 0;
	long r0 = 0, r1 = 0, r2 = 0;
	uint64_t t0, t1;
	r0 = server_rss_kib();

	if (opt.mode == M_HANDSHAKE) {
		phase = 2;
		for (int i = 0; i < nconns; i++) conn_start(&conns[i]);
		n_open = 0;
		uint64_t w = now_ns() + (uint64_t)(opt.warmup * 1e9), scan = 0;
		while (now_ns() < w && n_dead < nconns) poll_once(w);
		phase = 3;
		memset(hist, 0, sizeof hist); hist_n = hist_max = 0;
		self_cpu(&u0, &s0); sc0 = server_cpu(); t0 = now_ns();
		w = t0 + (uint64_t)(opt.duration * 1e9);
		for (;;) {
			uint64_t t = now_ns();
			if (t >= w || n_dead >= nconns) break;
			poll_once(w);
			if (t - scan > 500000000ull) {
				scan = t;
				for (int i = 0; i < nconns; i++)
					if (conns[i].fd >= 0 && t > conns[i].t_start && t - conns[i].t_start > 5000000000ull) {
						err.timeout++;
						note("no answer within 5 s in state %d", conns[i].state);
						conn_close(&conns[i], true);
					}
			}
		}
		t1 = now_ns(); self_cpu(&u1, &s1); sc1 = server_cpu();
		phase = 4;
		print_json(names[opt.mode], (t1 - t0) / 1e9, u1 - u0, s1 - s0, sc1 - sc0, r0, server_rss_kib(), 0);
		return errors_total() ? 1 : 0;
	}

	open_all();
	fprintf(stderr, "wsload: %d of %d connections open\n", n_open, nconns);
	if (opt.prime && n_open) {
		phase = 1;
		uint64_t limit = now_ns() + (uint64_t)(opt.connect_timeout * 1e9);
		int started = 0;
		while (primed + n_dead < nconns) {
			/* at most 200 connections at a time, so that a slow server is not flooded */
			while (started < nconns && started - primed < 200) {
				Conn *c = &conns[started++];
				if (c->state != S_OPEN) continue;
				c->prime_left = opt.prime;
				send_messages(c, 1, now_ns());
			}
			poll_once(limit);
			if (now_ns() > limit) { err.timeout++; note("priming: only %d connections answered", primed); break; }
		}
	}
	r1 = server_rss_kib();

	if (opt.mode == M_IDLE) {
		phase = 3;
		self_cpu(&u0, &s0); sc0 = server_cpu(); t0 = now_ns();
		uint64_t w = t0 + (uint64_t)(opt.duration * 1e9);
		while (now_ns() < w) poll_once(w);
		t1 = now_ns(); self_cpu(&u1, &s1); sc1 = server_cpu();
		phase = 4;
		r2 = server_rss_kib();
		print_json(names[opt.mode], (t1 - t0) / 1e9, u1 - u0, s1 - s0, sc1 - sc0, r0, r1, r2);
		return errors_total() ? 1 : 0;
	}

	/* echo and broadcast */
	phase = 2;
	uint64_t start = now_ns();
	uint64_t w = start + (uint64_t)(opt.warmup * 1e9);
	Conn *sender = NULL;
	int nrecv = 0;
	if (opt.mode == M_BROADCAST) {
		for (int i = nconns - 1; i >= 0 && !sender; i--) if (conns[i].state == S_OPEN) sender = &conns[i];
		nrecv = n_open - (opt.self ? 0 : 1);
	} else
		for (int i = 0; i < nconns; i++)
			if (conns[i].state == S_OPEN) send_messages(&conns[i], opt.window, now_ns());
	u0 = s0 = 0; t0 = start;
	for (;;) {
		uint64_t t = now_ns();
		if (phase == 2 && t >= w) {
			phase = 3;
			memset(hist, 0, sizeof hist); hist_n = hist_max = 0;
			m_msgs = m_bytes = m_wire = m_deflated = 0;
			self_cpu(&u0, &s0); sc0 = server_cpu(); t0 = now_ns();
			w = t0 + (uint64_t)(opt.duration * 1e9);
		} else if (phase == 3 && t >= w) break;
		if (n_open == 0) { note("no connection is open"); err.eof += !errors_total(); break; }
		if (sender) {
			while (sender->state == S_OPEN && bc_sent * nrecv - bc_delivered <= (uint64_t)(opt.window - 1) * nrecv) {
				bc_ts[bc_sent & 0xffff] = now_ns();
				bc_sent++;
				if (!send_messages(sender, 1, 0)) break;
			}
			if (sender->state != S_OPEN) { note("the sender's connection is gone"); break; }
		}
		poll_once(w);
	}
	t1 = now_ns(); self_cpu(&u1, &s1); sc1 = server_cpu();
	if (phase == 2) { u0 = u1; s0 = s1; sc0 = sc1; }        /* nothing was measured */
	phase = 4;
	r2 = server_rss_kib();
	if (opt.mode == M_BROADCAST && t1 - bc_last > 1000000000ull && t1 > bc_last) { err.timeout++; note("deliveries stopped %.1f s before the end", (t1 - bc_last) / 1e9); }
	if (opt.mode == M_ECHO && m_msgs == 0) { err.timeout++; note("no echo arrived while measuring"); }
	print_json(names[opt.mode], (t1 - t0) / 1e9, u1 - u0, s1 - s0, sc1 - sc0, r0, r1, r2);
	return errors_total() ? 1 : 0;
}
