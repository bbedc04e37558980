#!/usr/bin/env python3
"""libtorrent-rasterbar as the other side: a peer, a maker of torrents, and a second opinion on ours.

  lt.py peer --torrent F --dir D --listen IP:PORT [--seed] [--connect IP:PORT]... [--up-limit BYTES] [--down-limit BYTES]
             [--once] [--stay SECONDS] [--dht IP:PORT] [--lsd] [--utp] [--encryption off|prefer|require]
             [--tls CERTIFICATE KEY]
        prints READY when it listens and DONE SECONDS when the download is complete; F may be a magnet link; with
        --dht it begins at that node, with --lsd it looks on the local network, and otherwise does neither
  lt.py node --listen IP:PORT [--more N] [--stay SECONDS]
        nodes of the DHT that swap nothing: one, and N on the ports after it that begin at it; prints READY
  lt.py dht --listen IP:PORT --at IP:PORT [--stay SECONDS] WHAT ARGUMENT...
        a node that begins at another and asks: meet | peers HASH | announce HASH PORT | get TARGET
        | get-mutable KEY SALT | put TEXT | put-mutable SEED KEY TEXT SALT | sample IP:PORT TARGET;
        keys, hashes and seeds in hex; prints one line of JSON, null if there was no answer, and stays for a while
  lt.py create --path P --out F --piece-length N --format v1|v2|hybrid [--tracker URL]
  lt.py hashes FILE...        one line each: the v1 info-hash and the v2 info-hash, or - where there is none
  lt.py check --torrent F --dir D     hashes all content; exit code 0 when all of it is good
  lt.py version
"""
import argparse
import hashlib
import json
import os
import signal
import sys
import time

import libtorrent as lt


POLICIES = {"off": (2, 3), "prefer": (1, 3), "require": (0, 2)}


def session(listen, up_limit=0, dht=None, lsd=False, utp=False, encryption="off", down_limit=0):
    """`dht` is the node to begin at, or an empty text for one that others begin at; `utp` is that or TCP alone."""
    policy, level = POLICIES[encryption]
    ip = ",".join(one.rsplit(":", 1)[0].strip("[]") for one in listen.split(","))
    s = lt.session({
        "listen_interfaces": listen,
        "outgoing_interfaces": ip,
        "enable_dht": dht is not None, "enable_lsd": lsd, "enable_upnp": False, "enable_natpmp": False,
        "enable_incoming_utp": utp, "enable_outgoing_utp": utp,
        "enable_incoming_tcp": not utp, "enable_outgoing_tcp": not utp,
        "dht_bootstrap_nodes": dht or "",
        # The network of a test has addresses that its defaults take for those of one careless crowd.
        "dht_restrict_routing_ips": False, "dht_restrict_search_ips": False, "dht_ignore_dark_internet": False,
        # Short questions of one host follow one another faster than it lets the world ask.
        "dht_block_ratelimit": 100,
        "allow_multiple_connections_per_ip": True,
        "in_enc_policy": policy, "out_enc_policy": policy, "allowed_enc_level": level,
        "upload_rate_limit": up_limit, "download_rate_limit": down_limit,
        # A tracker in the same network is reached at once, also when it has announced this second.
        "min_announce_interval": 1,
        "connection_speed": 200,
        "alert_mask": lt.alert.category_t.error_notification | lt.alert.category_t.status_notification
        | lt.alert.category_t.storage_notification | lt.alert.category_t.dht_notification
        | lt.alert.category_t.dht_operation_notification,
    })
    # Peers of the local network are free of limits unless every address is in the global class alone.
    everybody = lt.ip_filter()
    everybody.add_rule("0.0.0.0", "255.255.255.255", 1 << s.global_peer_class_id)
    everybody.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1 << s.global_peer_class_id)
    s.set_peer_class_filter(everybody)
    # A torrent that is added before the DHT runs is looked for in it only a quarter of an hour later.
    began = time.time()
    while dht is not None and not s.is_dht_running() and time.time() - began < 10:
        time.sleep(0.01)
    return s


def params(torrent, directory):
    if torrent.startswith("magnet:"):
        p = lt.parse_magnet_uri(torrent)
    else:
        p = lt.add_torrent_params()
        p.ti = lt.torrent_info(torrent)
    p.save_path = directory
    p.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    return p


def peer(a):
    s = session(a.listen + ("s" if a.tls else ""), a.up_limit, a.dht, a.lsd, a.utp, a.encryption, a.down_limit)
    p = params(a.torrent, a.dir)
    if a.seed:
        p.flags |= lt.torrent_flags.seed_mode
    if a.tls:
        # It would call its peers without a certificate, and not again for a minute.
        p.flags |= lt.torrent_flags.paused
    h = s.add_torrent(p)
    if a.tls:
        h.set_ssl_certificate(a.tls[0], a.tls[1], "")
        h.resume()
    for c in a.connect:
        ip, port = c.rsplit(":", 1)
        h.connect_peer((ip.strip("[]"), int(port)))
    print("READY", flush=True)
    began = time.time()
    done = a.seed
    try:
        while time.time() - began < a.stay:
            s.wait_for_alert(50)
            s.pop_alerts()
            if not done and h.status().is_seeding:
                done = True
                print("DONE %.3f" % (time.time() - began), flush=True)
                if a.once:
                    break
    except KeyboardInterrupt:
        pass
    flush(s, h)
    return 0 if done else 1


def node(a):
    ip, port = a.listen.rsplit(":", 1)
    sessions = [session(a.listen, dht="")]
    sessions += [session("%s:%d" % (ip, int(port) + n), dht=a.listen) for n in range(1, a.more + 1)]
    print("READY", flush=True)
    try:
        time.sleep(a.stay)
    except KeyboardInterrupt:
        pass
    return 0


def alert_of(s, kind, limit=20, fits=lambda alert: True):
    """The next alert of this kind, or None."""
    began = time.time()
    while time.time() - began < limit:
        s.wait_for_alert(50)
        for alert in s.pop_alerts():
            if isinstance(alert, kind) and fits(alert):
                return alert
    return None


def nodes_met(s):
    """How many nodes are in its table."""
    s.post_session_stats()
    stats = alert_of(s, lt.session_stats_alert)
    return stats.values["dht.dht_nodes"] if stats else 0


def dht(a):
    s = session(a.listen, dht="")
    ip, port = a.at.rsplit(":", 1)
    # Told as a node: hosts to bootstrap from never get into its table, and nothing is stored with them.
    s.add_dht_node((ip.strip("[]"), int(port)))
    began = time.time()
    while nodes_met(s) == 0 and time.time() - began < 20:
        time.sleep(0.05)
    print(json.dumps(dht_ask(s, a.ask[0], a.ask[1:])), flush=True)
    time.sleep(a.stay)
    return 0


def dht_ask(s, what, args):
    hash_of = lambda text: lt.sha1_hash(bytes.fromhex(text))
    if what == "meet":
        return nodes_met(s)
    if what == "peers":
        s.dht_get_peers(hash_of(args[0]))
        heard = alert_of(s, lt.dht_get_peers_reply_alert)
        return heard and ["%s:%d" % peer for peer in heard.peers()]
    if what == "announce":
        s.dht_announce(hash_of(args[0]), int(args[1]), 0)
        # There is no word of its end.
        time.sleep(2)
        return True
    if what == "get":
        s.dht_get_immutable_item(hash_of(args[0]))
        heard = alert_of(s, lt.dht_immutable_item_alert)
        return heard and text(heard.item)
    if what == "get-mutable":
        s.dht_get_mutable_item(bytes.fromhex(args[0]), args[1].encode())
        heard = alert_of(s, lt.dht_mutable_item_alert, fits=lambda alert: alert.authoritative or alert.seq > 0)
        return heard and [text(heard.item), heard.seq]
    if what == "put":
        target = s.dht_put_immutable_item(args[0].encode())
        heard = alert_of(s, lt.dht_put_alert)
        return heard and [str(target), heard.num_success]
    if what == "put-mutable":
        # Scalar and prefix, as RFC 8032 makes them of a seed.
        secret = bytearray(hashlib.sha512(bytes.fromhex(args[0])).digest())
        secret[0] &= 248
        secret[31] = secret[31] & 63 | 64
        s.dht_put_mutable_item(bytes(secret), bytes.fromhex(args[1]), args[2].encode(), args[3].encode())
        heard = alert_of(s, lt.dht_put_alert)
        return heard and [heard.seq, heard.num_success]
    if what == "sample":
        ip, port = args[0].rsplit(":", 1)
        s.dht_sample_infohashes((ip.strip("[]"), int(port)), hash_of(args[1]))
        heard = alert_of(s, lt.dht_sample_infohashes_alert)
        return heard and [str(sample) for sample in heard.samples]
    sys.exit("no such question: " + what)


def text(item):
    value = item["value"] if isinstance(item, dict) and "value" in item else item
    return value.decode() if isinstance(value, bytes) else value


def flush(s, h):
    """What was received may still be in memory only."""
    h.flush_cache()
    began = time.time()
    while time.time() - began < 10:
        s.wait_for_alert(50)
        if any(isinstance(alert, lt.cache_flushed_alert) for alert in s.pop_alerts()):
            return


def create(a):
    flags = {"v1": lt.create_torrent.v1_only, "v2": lt.create_torrent.v2_only, "hybrid": 0}[a.format]
    path = os.path.abspath(a.path)
    fs = lt.file_storage()
    lt.add_files(fs, path)
    t = lt.create_torrent(fs, a.piece_length, int(flags))
    if a.tracker:
        t.add_tracker(a.tracker)
    lt.set_piece_hashes(t, os.path.dirname(path))
    with open(a.out, "wb") as f:
        f.write(lt.bencode(t.generate()))
    return 0


def hashes(a):
    for f in a.files:
        i = lt.torrent_info(f).info_hashes()
        print(i.v1 if i.has_v1() else "-", i.v2 if i.has_v2() else "-")
    return 0


def check(a):
    s = session("127.0.0.1:0")
    p = params(a.torrent, a.dir)
    # Nothing is to be fetched or written here: only what is there is judged.
    p.flags |= lt.torrent_flags.upload_mode
    h = s.add_torrent(p)
    h.force_recheck()
    s.wait_for_alert(100)
    began = time.time()
    state = h.status()
    while time.time() - began < a.stay:
        state = h.status()
        if state.state in (lt.torrent_status.finished, lt.torrent_status.seeding):
            break
        if state.state == lt.torrent_status.downloading and time.time() - began > 1:
            break
        time.sleep(0.05)
    print("%.6f" % state.progress)
    return 0 if state.is_seeding or state.is_finished else 1


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest="what", required=True)
    p = sub.add_parser("peer")
    p.add_argument("--torrent", required=True)
    p.add_argument("--dir", required=True)
    p.add_argument("--listen", required=True)
    p.add_argument("--seed", action="store_true")
    p.add_argument("--connect", action="append", default=[])
    p.add_argument("--up-limit", type=int, default=0)
    p.add_argument("--down-limit", type=int, default=0)
    p.add_argument("--stay", type=float, default=600)
    p.add_argument("--once", action="store_true")
    p.add_argument("--dht")
    p.add_argument("--lsd", action="store_true")
    p.add_argument("--utp", action="store_true")
    p.add_argument("--tls", nargs=2)
    p.add_argument("--encryption", choices=POLICIES, default="off")
    p = sub.add_parser("node")
    p.add_argument("--listen", required=True)
    p.add_argument("--more", type=int, default=0)
    p.add_argument("--stay", type=float, default=600)
    p = sub.add_parser("dht")
    p.add_argument("--listen", required=True)
    p.add_argument("--at", required=True)
    p.add_argument("--stay", type=float, default=0)
    p.add_argument("ask", nargs="+")
    p = sub.add_parser("create")
    p.add_argument("--path", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--piece-length", type=int, required=True)
    p.add_argument("--format", choices=["v1", "v2", "hybrid"], required=True)
    p.add_argument("--tracker")
    p = sub.add_parser("hashes")
    p.add_argument("files", nargs="+")
    p = sub.add_parser("check")
    p.add_argument("--torrent", required=True)
    p.add_argument("--dir", required=True)
    p.add_argument("--stay", type=float, default=600)
    sub.add_parser("version")
    a = ap.parse_args()
    if a.what == "version":
        print(lt.__version__)
        return 0
    return {"peer": peer, "node": node, "dht": dht, "create": create, "hashes": hashes, "check": check}[a.what](a)


if __name__ == "__main__":
    # Ignored by whoever was started in the background of a shell; it is how the peer is told to end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
