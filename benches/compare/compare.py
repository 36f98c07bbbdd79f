#!/usr/bin/env python3
"""Compare reverse proxies under the same load, in interleaved rounds. See README.md. Traffic stays on 127.0.0.1."""
import argparse, base64, hashlib, hmac, json, os, re, resource, shlex, shutil, signal, socket, ssl, statistics, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("BENCH_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gateway-bench")
TICK = os.sysconf("SC_CLK_TCK")
SECRET = "benchmarksecretbenchmarksecret01"
IDENTITY = "Bearer " + "e" * 320
SCENARIOS = {
    "plain1k": dict(kind="wrk", path="/1k", conns=64, doc="1 KiB GET, HTTP/1.1 keep-alive, plaintext"),
    "plain64k": dict(kind="wrk", path="/64k", conns=64, doc="64 KiB GET, HTTP/1.1 keep-alive, plaintext"),
    "tls1k": dict(kind="wrk", path="/1k", conns=64, tls=True, doc="1 KiB GET, HTTP/1.1 keep-alive over TLS 1.3 (ECDSA P-256)"),
    "tls64k": dict(kind="wrk", path="/64k", conns=64, tls=True, doc="64 KiB GET, HTTP/1.1 keep-alive over TLS 1.3"),
    "handshake": dict(kind="tlsload", path="/1k", conns=16, tls=True, doc="one full TLS 1.3 handshake (ECDSA P-256) and one 1 KiB GET per connection"),
    "connect": dict(kind="wrk", path="/1k", conns=64, close=True, doc="one plaintext TCP connection per 1 KiB GET"),
    "h2": dict(kind="h2load", path="/1k", conns=16, streams=10, tls=True, doc="1 KiB GET, HTTP/2 over TLS 1.3, 16 connections x 10 streams"),
    "latency": dict(kind="rate", path="/1k", conns=64, doc="1 KiB GET at a fixed rate, Poisson arrivals, latency from the due time"),
}

def die(msg):
    sys.exit("compare.py: " + msg)

def find_bin(name):
    for d in (CACHE / "venv" / "bin", CACHE / "bin"):
        if (d / name).exists():
            return str(d / name)
    return shutil.which(name) or next((p for p in ("/usr/sbin/" + name, "/usr/local/sbin/" + name) if os.path.exists(p)), None)

used_ports = set()
def free_port():
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            p = s.getsockname()[1]
        if p not in used_ports:
            used_ports.add(p)
            return p

def b64u(b):
    return base64.urlsafe_b64encode(b).rstrip(b"=").decode()

def hs256():
    h = b64u(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    now = int(time.time())
    p = b64u(json.dumps({"iss": "https://gw.example", "aud": "upstream", "sub": "user-0123456789", "iat": now, "exp": now + 86400, "jti": "0123456789abcdef", "did": "device-0123456789abcdef"}).encode())
    return f"{h}.{p}." + b64u(hmac.new(SECRET.encode(), f"{h}.{p}".encode(), hashlib.sha256).digest())

def fill(s, v):
    return re.sub(r"\{\{(\w+)\}\}", lambda m: str(v[m.group(1)]), s)

# ---- process accounting -------------------------------------------------------------------------------------------
def proc_table():
    t = {}
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                f = Path("/proc", d, "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            t[int(d)] = (int(f[1]), int(f[3]), sum(map(int, f[11:15])))  # ppid, session, own + waited-for children's time
    return t

def tree(pids):
    t = proc_table()
    out = {p for p in t if p in pids or t[p][1] in pids}
    while True:
        more = {p for p, (pp, _, _) in t.items() if pp in out} - out
        if not more:
            return {p: t[p][2] for p in out}
        out |= more

def cpu_seconds(pids):
    return sum(tree(pids).values()) / TICK

def mem_peak_kib(pids):
    """Sum of peak RSS, and of present proportional set size, over the process tree."""
    hwm = pss = 0
    for p in tree(pids):
        try:
            m = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{p}/status").read_text())
            hwm += int(m.group(1)) if m else 0
            m = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{p}/smaps_rollup").read_text(), re.M)
            pss += int(m.group(1)) if m else 0
        except OSError:
            pass
    return hwm, pss

def core_busy():
    out = {}
    for l in Path("/proc/stat").read_text().splitlines():
        m = re.match(r"cpu(\d+) (.*)", l)
        if m:
            f = list(map(int, m.group(2).split()))
            out[int(m.group(1))] = (sum(f[:8]) - f[3] - f[4], sum(f[:8]), f[7])
    return out

def busy_share(secs):
    """Share of one core that everything on this machine uses over `secs`."""
    a = core_busy(); time.sleep(secs); b = core_busy()
    return sum(b[k][0] - a[k][0] for k in b) / TICK / secs

def wait_quiet(limit):
    """Waits until nothing else uses more than a tenth of a core, `limit` seconds at most."""
    end = time.time() + limit
    while busy_share(0.3) > 0.1 and time.time() < end:
        time.sleep(0.7)

def load_cpu_seconds():
    r = resource.getrusage(resource.RUSAGE_CHILDREN)
    return r.ru_utime + r.ru_stime

# ---- processes ----------------------------------------------------------------------------------------------------
started = []
def start(cmd, log, cpu=None, env=None, cwd=None):
    if cpu is not None:
        cmd = ["taskset", "-c", str(cpu)] + cmd
    p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **(env or {})}, cwd=cwd)
    started.append(p)
    return p

def stop(procs):
    for p in procs:
        if p.poll() is None:
            p.terminate()
    for p in procs:
        try:
            p.wait(5)
        except subprocess.TimeoutExpired:
            try:
                os.killpg(p.pid, signal.SIGKILL)  # its own session, started above
            except ProcessLookupError:
                pass
            p.wait()
        if p in started:
            started.remove(p)

def wait_port(port, procs, what, log, secs=20):
    end = time.time() + secs
    while time.time() < end:
        for p in procs:
            if p.poll() is not None:
                die(f"{what} ended at once (exit {p.returncode}):\n" + Path(log.name).read_text()[-2000:])
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            time.sleep(0.05)
    die(f"{what} does not listen on port {port}:\n" + Path(log.name).read_text()[-2000:])

def get(port, path, headers, tls=False):
    """One request; returns (status, body, response head)."""
    s = socket.create_connection(("127.0.0.1", port), 5)
    if tls:
        c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
        c.set_alpn_protocols(["http/1.1"])
        s = c.wrap_socket(s, server_hostname="localhost")
    s.sendall((f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + "".join(h + "\r\n" for h in headers) + "\r\n").encode())
    d = b""
    s.settimeout(5)
    while True:
        try:
            b = s.recv(65536)
        except (TimeoutError, ssl.SSLError):
            break
        if not b:
            break
        d += b
        if b"\r\n\r\n" in d:
            head, body = d.split(b"\r\n\r\n", 1)
            m = re.search(rb"(?i)content-length: *(\d+)", head)
            if m and len(body) >= int(m.group(1)):
                break
    s.close()
    head, _, body = d.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body, head.decode("latin1")

class Peer:
    def __init__(self, name, spec, kind="peer"):
        self.name, self.spec, self.kind = name, spec, kind
        self.procs, self.headers = [], []

    def start(self, ctx, workers, cpu):
        self.tmp = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=ctx["tmp"]))
        s = self.spec
        v = dict(ctx, tmp=self.tmp, port=s.get("port") or free_port(), tls_port=s.get("tls_port") or free_port(), auth_port=free_port(), workers=workers)
        for b in s.get("needs", []):
            v["bin_" + b] = find_bin(b)
        for src, dst in s.get("files", {}).items():
            (self.tmp / dst).write_text(fill((s["dir"] / src).read_text(), v))
        self.port, self.tls_port = int(v["port"]), int(v["tls_port"])
        os.chmod(self.tmp, 0o755)
        self.log = open(self.tmp / "log", "wb")
        env = {k: fill(x, v) for k, x in s.get("env", {}).items()}
        # auxiliary processes (the auth service) first
        for c in reversed(s["cmds"]):
            self.procs.insert(0, start([fill(a, v) for a in c], self.log, cpu, env))
        self.pids = [p.pid for p in self.procs]
        if s.get("plain", True):
            wait_port(self.port, self.procs, self.name, self.log, s.get("wait", 20))
        if s.get("tls"):
            wait_port(self.tls_port, self.procs, self.name, self.log, s.get("wait", 20))
        self.headers = [fill(h, v) for h in s.get("headers", [])]
        if s.get("headers_from"):
            out = subprocess.run(fill(s["headers_from"], v), shell=True, capture_output=True, text=True, timeout=60)
            if out.returncode:
                die(f"{self.name}: headers_from failed: {out.stderr[-1000:]}")
            self.headers += [l for l in out.stdout.splitlines() if ":" in l]
        time.sleep(0.2)

    def target(self, sc):
        return self.tls_port if sc.get("tls") else self.port

    def check(self, sc):
        """The answer is right, and (for peers that authenticate) a request without credentials is refused."""
        st, body, _ = get(self.target(sc), sc["path"], self.headers, sc.get("tls", False))
        want = 65536 if "64k" in sc["path"] else 1024
        if st != 200 or len(body) != want:
            die(f"{self.name}: GET {sc['path']} gave status {st} and {len(body)} bytes (200 and {want} wanted)\n" + Path(self.log.name).read_text()[-1500:])
        _, echo, _ = get(self.target(sc), "/echo", self.headers + ["X-Identity: forged"], sc.get("tls", False))
        refused = None
        if self.headers:
            refused = get(self.target(sc), sc["path"], [], sc.get("tls", False))[0] in (301, 302, 303, 307, 401, 403)
        return dict(upstream_saw=echo.decode("latin1")[:600], refuses_without_credentials=refused)

    def stop(self):
        stop(self.procs)
        self.procs = []

# ---- load generators ----------------------------------------------------------------------------------------------
def unit(s):
    m = re.match(r"([\d.]+)(us|ms|s|m)?", s)
    return float(m.group(1)) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7, None: 1}[m.group(2)]

def load(peer, sc, secs, cpu, rate=None, warm=False):
    pin = ["taskset", "-c", str(cpu)] if cpu is not None else []
    url = f"{'https' if sc.get('tls') else 'http'}://127.0.0.1:{peer.target(sc)}{sc['path']}"
    hs = [a for h in peer.headers for a in ("-H", h)]
    r = {}
    if sc["kind"] == "wrk":
        cmd = ["wrk", "-t1", f"-c{sc['conns']}", f"-d{max(1, round(secs))}s", "--latency", *hs, *(["-H", "Connection: close"] if sc.get("close") else []), url]
        out = subprocess.run(pin + cmd, capture_output=True, text=True, timeout=secs + 60)
        o = out.stdout
        m = re.search(r"(\d+) requests in ([\d.]+\w+),", o)
        if not m:
            die(f"wrk failed on {peer.name}: {o} {out.stderr}")
        r["n"], r["secs"] = int(m.group(1)), unit(m.group(2)) / 1e6
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", o)
        r["errors"] = int(bad.group(1)) if bad else 0
        se = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", o)
        r["errors"] += sum(map(int, se.groups())) if se else 0
        for p, k in (("50", "p50_us"), ("99", "p99_us")):
            m = re.search(rf"^\s+{p}%\s+([\d.]+\w+)", o, re.M)
            r[k] = unit(m.group(1)) if m else None
    elif sc["kind"] == "h2load":
        cmd = ["h2load", "-t1", f"-c{sc['conns']}", f"-m{sc['streams']}", f"-D{max(1, round(secs))}", *hs, url]
        o = subprocess.run(pin + cmd, capture_output=True, text=True, timeout=secs + 60).stdout
        m = re.search(r"finished in ([\d.]+\w+)", o)
        q = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", o)
        if not m or not q:
            die(f"h2load failed on {peer.name}: {o}")
        if "Application protocol: h2" not in o:
            die(f"{peer.name} did not speak h2: {o[:600]}")
        r["n"], r["secs"], r["errors"] = int(q.group(1)), float(max(1, round(secs))), int(q.group(2)) + int(q.group(3))
    elif sc["kind"] == "tlsload":
        cmd = [find_bin("tlsload") or die("tlsload is not built: run setup.sh"), str(peer.target(sc)), sc["path"], str(secs), str(sc["conns"]), *peer.headers]
        o = subprocess.run(pin + cmd, capture_output=True, text=True, timeout=secs + 60)
        if o.returncode:
            die(f"tlsload failed on {peer.name}: {o.stderr}")
        d = json.loads(o.stdout)
        if d["resumed"] or (d["requests"] and d["protocol"] != "TLSv1.3"):
            die(f"{peer.name}: not full TLS 1.3 handshakes: {d}")
        r.update(n=d["requests"], secs=d["seconds"], errors=d["errors"], p50_us=d["p50_us"], p99_us=d["p99_us"])
    elif sc["kind"] == "rate":
        cmd = [find_bin("rateload") or die("rateload is not built: run setup.sh"), str(peer.target(sc)), sc["path"], str(rate), str(secs), str(sc["conns"]), "0" if warm else "0.5", *peer.headers]
        o = subprocess.run(pin + cmd, capture_output=True, text=True, timeout=secs + 60)
        if o.returncode:
            die(f"rateload failed on {peer.name}: {o.stderr}")
        d = json.loads(o.stdout)
        r.update(n=d["requests"], secs=secs + 0.5, errors=d["errors"], p50_us=d["p50_us"], p99_us=d["p99_us"], p999_us=d["p999_us"], max_us=d["max_us"])
    return r

# ---- run ----------------------------------------------------------------------------------------------------------
def run_scenario(name, peers, a, ctx, proxy_cpu, load_cpu):
    sc = SCENARIOS[name]
    if a.conns: sc = dict(sc, conns=a.conns)
    live = []
    for p in peers:
        if sc.get("tls") and not p.spec.get("tls"): continue
        if sc["kind"] == "h2load" and not p.spec.get("h2"): continue
        if not sc.get("tls") and not p.spec.get("plain", True): continue
        live.append(p)
    secs, rounds = a.duration, a.rounds
    res = {p.name: dict(rounds=[], kind=p.kind, auth=p.spec.get("auth", "")) for p in live}
    try:
        for p in live:
            p.start(ctx, a.workers, proxy_cpu)
            res[p.name].update(p.check(sc))
        for p in live:
            load(p, sc, a.warmup, load_cpu, rate=a.rate, warm=True)
        for i in range(rounds):
            order = live if i % 2 == 0 or not a.alternate else live[::-1]
            for p in order:
                if a.wait_quiet: wait_quiet(a.wait_quiet)
                c0, b0, t0 = cpu_seconds(p.pids), core_busy(), time.monotonic()
                u0, l0 = cpu_seconds([ctx["upstream_pid"]]), load_cpu_seconds()
                r = load(p, sc, secs, load_cpu, rate=a.rate)
                c1, b1, t1 = cpu_seconds(p.pids), core_busy(), time.monotonic()
                u, l = cpu_seconds([ctx["upstream_pid"]]) - u0, load_cpu_seconds() - l0
                # what everything else on the machine used meanwhile, in cores: the noise of this round
                r["foreign"] = round(max(0, sum(b1[k][0] - b0[k][0] for k in b1) / TICK - (c1 - c0) - u - l) / (t1 - t0), 3)
                if r["n"]:
                    r["rps"] = r["n"] / r["secs"]
                    r["cpu_us"] = (c1 - c0) * 1e6 / r["n"]
                    r["upstream_us"] = u * 1e6 / r["n"]
                    r["load_us"] = l * 1e6 / r["n"]
                    r["cpu_share"] = (c1 - c0) / (t1 - t0)
                else:
                    r.update(rps=0, cpu_us=float("nan"), cpu_share=0)
                r["cores_busy"] = {k: round((b1[k][0] - b0[k][0]) / max(1, b1[k][1] - b0[k][1]), 3) for k in b1}
                r["steal"] = round(sum(b1[k][2] - b0[k][2] for k in b1) / max(1, sum(b1[k][1] - b0[k][1] for k in b1)), 4)
                res[p.name]["rounds"].append(r)
                if a.verbose:
                    print(f"  {name} round {i + 1} {p.name:22} {r['rps']:9.0f} req/s {r['cpu_us']:7.2f} us CPU/req  errors {r['errors']}", file=sys.stderr, flush=True)
        for p in live:
            res[p.name]["rss_peak_kib"], res[p.name]["pss_kib"] = mem_peak_kib(p.pids)
    finally:
        for p in live:
            p.stop()
    base = a.baseline if a.baseline in res else (next(iter(res)) if res else None)
    for n, x in res.items():
        s = x["summary"] = {}
        for k in ("rps", "cpu_us", "p50_us", "p99_us", "p999_us", "max_us", "cpu_share", "upstream_us", "load_us", "foreign"):
            v = [r[k] for r in x["rounds"] if r.get(k) is not None]
            if v:
                s[k] = dict(median=statistics.median(v), min=min(v), max=max(v))
        s["errors"] = sum(r["errors"] for r in x["rounds"])
        s["rss_peak_mib"] = x["rss_peak_kib"] / 1024
    for n, x in res.items():
        x["ratio"] = {}
        for k in ("rps", "cpu_us", "p50_us", "p99_us"):
            if k in x["summary"] and k in res[base]["summary"] and res[base]["summary"][k]["median"]:
                x["ratio"][k] = x["summary"][k]["median"] / res[base]["summary"][k]["median"]
        if "cpu_us" in x["summary"] and res[base]["summary"].get("cpu_us", {}).get("min"):
            x["ratio"]["cpu_us_min"] = x["summary"]["cpu_us"]["min"] / res[base]["summary"]["cpu_us"]["min"]
    return dict(scenario=name, doc=sc["doc"], baseline=base, rate=a.rate if sc["kind"] == "rate" else None, results=res)

def table(r):
    lat = any("p50_us" in x["summary"] for x in r["results"].values())
    out = [f"{r['scenario']}: {r['doc']}" + (f", {r['rate']} req/s" if r["rate"] else "") + f"   (ratios to {r['baseline']})"]
    out.append(f"{'':24}{'req/s':>9} {'(min-max)':>17} {'x':>5} {'CPU us/req':>11} {'(min-max)':>15} {'x':>5} {'x min':>5}" + (f" {'p50 us':>8} {'p99 us':>8}" if lat else "") + f" {'RSS MiB':>8} {'proxy CPU':>9} {'others':>6} errors")
    for n, x in r["results"].items():
        s, q = x["summary"], x["ratio"]
        mm = lambda k, d: f"({s[k]['min']:.{d}f}-{s[k]['max']:.{d}f})"
        l = f"{n:24}{s['rps']['median']:9.0f} {mm('rps', 0):>17} {q.get('rps', 0):5.2f} {s['cpu_us']['median']:11.2f} {mm('cpu_us', 2):>15} {q.get('cpu_us', 0):5.2f} {q.get('cpu_us_min', 0):5.2f}"
        if lat:
            l += (f" {s['p50_us']['median']:8.0f} {s['p99_us']['median']:8.0f}" if "p50_us" in s else " " * 18)
        out.append(l + f" {s['rss_peak_mib']:8.1f} {s['cpu_share']['median'] * 100:8.0f}% {s['foreign']['max'] * 100:5.0f}% {s['errors']}")
    return "\n".join(out)

def candidate(text):
    """NAME=CMD;port=N[;tls_port=N][;header=H]...[;headers_from=SHELL CMD][;h2=1][;env=K=V]...[;auth=TEXT][;wait=SECONDS]"""
    parts = text.split(";")
    if "=" not in parts[0]:
        die("--candidate must begin NAME=CMD")
    name, cmd = parts[0].split("=", 1)
    s = dict(cmds=[shlex.split(cmd)], headers=[], env={}, plain=False, tls=False, h2=False)
    for p in parts[1:]:
        k, _, v = p.partition("=")
        k = k.strip()
        if k == "header": s["headers"].append(v)
        elif k == "env": s["env"].update([v.split("=", 1)])
        elif k == "port": s["plain"] = True; s["port"] = None if v == "auto" else int(v)
        elif k == "tls_port": s["tls"] = True; s["tls_port"] = None if v == "auto" else int(v)
        elif k == "h2": s["h2"] = v not in ("0", "no", "")
        elif k == "wait": s["wait"] = float(v)
        elif k in ("auth", "headers_from"): s[k] = v
        else: die(f"--candidate: unknown key {k!r}")
    if not (s["plain"] or s["tls"]):
        die("--candidate needs port= or tls_port=")
    return Peer(name, s, "candidate")

def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--scenario", default="plain1k", help="comma-separated: " + ", ".join(SCENARIOS))
    ap.add_argument("--peers", default="nginx,nginx-auth-request,haproxy,haproxy-jwt", help="comma-separated names, 'all', or 'none'; see --list")
    ap.add_argument("--candidate", action="append", default=[], help=candidate.__doc__)
    ap.add_argument("--baseline", default="nginx")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--duration", type=float, default=8)
    ap.add_argument("--warmup", type=float, default=1)
    ap.add_argument("--rate", type=float, default=5000, help="requests per second of the latency scenario")
    ap.add_argument("--conns", type=int, help="connections, in place of the scenario's own")
    ap.add_argument("--workers", type=int, default=1, help="worker processes/threads of each peer")
    ap.add_argument("--pin", default="auto", help="'auto' (proxy on core 0, load and upstream on core 1), 'none', or PROXY:LOAD core lists")
    ap.add_argument("--alternate", action="store_true", help="reverse the order in every second round")
    ap.add_argument("--wait-quiet", type=float, default=0, metavar="SECONDS", help="before each round wait, at most so long, for the rest of the machine to be idle")
    ap.add_argument("--json", help="write all figures there")
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--verbose", "-v", action="store_true")
    a = ap.parse_args()
    if a.rounds < 1 or a.rounds > 100 or a.duration > 120:
        die("rounds 1..100 and duration up to 120 s")
    avail = {}
    for f in sorted((HERE / "peers").glob("*/peer.json")):
        for s in json.loads(f.read_text()):
            s["dir"] = f.parent
            avail[s["name"]] = s
    modules = next((m for m in ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules") if os.path.isdir(m)), "/usr/lib/nginx/modules")
    def missing(s):
        m = [b for b in s.get("needs", []) if not find_bin(b)]
        if s.get("needs_module") and not os.path.exists(f"{modules}/{s['needs_module']}"):
            m.append(s["needs_module"])
        return m
    if a.list:
        for n, s in avail.items():
            print(f"{n:24} {'missing: ' + ', '.join(missing(s)) if missing(s) else 'ready':28} auth: {s.get('auth', '')}")
        return
    names = list(avail) if a.peers == "all" else [] if a.peers == "none" else a.peers.split(",")
    peers = []
    for n in names:
        if n not in avail:
            die(f"no peer {n!r}; known: {', '.join(avail)}")
        if missing(avail[n]):
            print(f"skipped {n}: missing {', '.join(missing(avail[n]))}", file=sys.stderr)
        else:
            peers.append(Peer(n, avail[n]))
    peers += [candidate(c) for c in a.candidate]
    if not peers:
        die("nothing to measure")
    if len({p.name for p in peers}) != len(peers):
        die("names must be different")
    if a.pin == "none" or (a.pin == "auto" and (os.cpu_count() or 1) < 2):
        proxy_cpu = load_cpu = None
    else:
        proxy_cpu, load_cpu = ("0", "1") if a.pin == "auto" else a.pin.split(":")
    with tempfile.TemporaryDirectory(prefix="gwbench-") as tmp:
        os.chmod(tmp, 0o755)
        T = Path(tmp)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", T / "key.pem", "-out", T / "cert.pem", "-days", "30",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
        (T / "both.pem").write_text((T / "cert.pem").read_text() + (T / "key.pem").read_text())
        for f in ("key.pem", "both.pem"): os.chmod(T / f, 0o644)
        up, up_strict = free_port(), free_port()
        ctx = dict(tmp=T, up=up, up_strict=up_strict, cert=T / "cert.pem", key=T / "key.pem", certkey=T / "both.pem", jwt=hs256(), jwt_secret=SECRET, jwt_secret_b64=b64u(SECRET.encode()), identity=IDENTITY, modules=modules)
        U = T / "upstream"; (U / "www").mkdir(parents=True); os.chmod(U, 0o755)
        (U / "www" / "64k").write_bytes(b"y" * 65536)
        uv = dict(ctx, tmp=U, port=up, strict_port=up_strict, body1k="x" * 1024, workers=a.workers if a.pin == "none" else 1)
        for f in ("nginx.conf", "locations.conf"):
            (U / f).write_text(fill((HERE / "upstream" / (f + ".in")).read_text(), uv))
        result = dict(when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), cpu=next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), ""), cores=os.cpu_count(), kernel=os.uname().release,
                      pin=a.pin, workers=a.workers, rounds=a.rounds, duration=a.duration, scenarios=[])
        code = 0
        try:
            log = open(U / "log", "wb")
            nx = find_bin("nginx") or die("nginx is missing: run setup.sh")
            u = start([nx, "-p", str(U), "-c", str(U / "nginx.conf")], log, load_cpu)
            ctx["upstream_pid"] = u.pid
            wait_port(up, [u], "upstream", log)
            for n in a.scenario.split(","):
                if n not in SCENARIOS:
                    die(f"no scenario {n!r}; known: {', '.join(SCENARIOS)}")
                r = run_scenario(n, peers, a, ctx, proxy_cpu, load_cpu)
                result["scenarios"].append(r)
                print(table(r) + "\n", flush=True)
                if any(x["summary"]["errors"] for x in r["results"].values()):
                    code = 1
                if a.json:
                    Path(a.json).write_text(json.dumps(result, indent=1) + "\n")
        finally:
            stop(list(started))
    return code

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
