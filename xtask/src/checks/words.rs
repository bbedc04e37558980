//! Rules 2, 3, 5, 6 and 12, and the one door of sockets: words that may stand only where the house allows them.

use super::source::{Source, word_at};
use super::{Finding, PURE};

/// Where `async` may stand; `shell` has it for HTTP alone, and for port mapping, whose crates speak nothing else.
const ASYNC: [&str; 4] = ["session", "daemon", "api", "cli"];
const ASYNC_SHELL: [&str; 2] = ["crates/shell/src/http", "crates/shell/src/mapping"];
/// Where threads meet: the two doors of the shell.
const MAILBOXES: [&str; 2] = ["crates/shell/src/mailbox.rs", "crates/shell/src/news.rs"];
/// Shared state that anybody may change at any time.
const SHARED: [&str; 5] = ["Arc<Mutex", "Arc<RwLock", "RwLock", "Rc<RefCell", "Arc<RefCell"];
/// Where `unsafe` may stand, if it is explained: an allocator that caps the fuzzers cannot be had without.
const UNSAFE: [&str; 2] = ["shell", "fuzz"];
/// What a pure crate does not know, and what it has instead.
const IMPURE: [(&str, &str); 19] = [
    ("HashMap", "maps iterate in a fixed order: BTreeMap or a slab"),
    ("HashSet", "sets iterate in a fixed order: BTreeSet"),
    ("Instant", "time is an argument: cx.now"),
    ("SystemTime", "time is an argument"),
    ("Mutex", "state is moved, never shared"),
    ("RwLock", "state is moved, never shared"),
    ("Condvar", "state is moved, never shared"),
    ("RefCell", "state is moved, never shared"),
    ("std::fs", "only the shell touches files"),
    ("thread::spawn", "only the shell starts threads"),
    ("thread::scope", "only the shell starts threads"),
    ("thread::Builder", "only the shell starts threads"),
    ("thread::sleep", "waiting is an entry in the agenda"),
    ("std::process", "only the shell knows processes"),
    ("std::env", "settings are arguments"),
    ("TcpStream", "only the shell opens sockets"),
    ("TcpListener", "only the shell opens sockets"),
    ("UdpSocket", "only the shell opens sockets"),
    ("tokio", "only the shell and above know a runtime"),
];

/// Where sockets are opened and names looked up.
const NET: &str = "crates/shell/src/net/";
/// What opens a socket, looks up a name or asks for interfaces. An HTTP client is made by `shell::http` alone, which asks
/// the same module how.
const SOCKETS: [&str; 8] = [
    "Socket::new",
    "TcpStream::connect",
    "UdpSocket::bind",
    "TcpListener::bind",
    "to_socket_addrs",
    "lookup_host",
    "if_addrs::",
    "Client::builder",
];

/// Words out of place.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        findings.extend(no_async(source));
        findings.extend(no_sharing(source));
        findings.extend(no_impurity(source));
        findings.extend(one_door(source));
        findings.extend(reasons(source));
        findings.extend(no_unsafe(source));
        findings.extend(forbids_unsafe(source));
    }
    findings
}

fn at(source: &Source, number: usize, text: impl Into<String>) -> Finding {
    Finding::new(&source.path, Some(number), text)
}

/// `.await`, and not a method whose name begins so.
fn awaits(code: &str) -> bool {
    let mut parts = code.split(".await");
    parts.next();
    parts.any(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
}

fn no_async(source: &Source) -> Vec<Finding> {
    if ASYNC.contains(&source.house()) || ASYNC_SHELL.iter().any(|room| source.path.starts_with(room)) {
        return Vec::new();
    }
    let found = (1..)
        .zip(&source.lines)
        .filter(|(_, line)| word_at(&line.code, "async").is_some() || awaits(&line.code));
    found
        .map(|(number, _)| at(source, number, "async has no place here; answer with data, wait in the shell"))
        .collect()
}

fn no_sharing(source: &Source) -> Vec<Finding> {
    let below_session = PURE.contains(&source.house()) || source.house() == "shell";
    if !below_session || MAILBOXES.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (number, line) in source.product_lines() {
        let code: String = line.code.chars().filter(|c| !c.is_whitespace()).collect();
        if let Some(word) = SHARED.iter().find(|word| code.contains(**word)) {
            findings.push(at(
                source,
                number,
                format!("{word} below session; give the state one owner and send it notes"),
            ));
        }
    }
    findings
}

fn no_impurity(source: &Source) -> Vec<Finding> {
    if !PURE.contains(&source.house()) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (number, line) in source.product_lines() {
        for (word, instead) in IMPURE {
            if word_at(&line.code, word).is_some() {
                findings.push(at(source, number, format!("{word} in a pure crate; {instead}")));
            }
        }
    }
    findings
}

/// Products open sockets by one module, so that one policy holds for all of them. Tools open their own.
fn one_door(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("crates/") || source.path.starts_with(NET) {
        return Vec::new();
    }
    let here = |word: &str| {
        word == "Client::builder" && ASYNC_SHELL.iter().any(|room| source.path.starts_with(room))
    };
    let mut findings = Vec::new();
    for (number, line) in source.product_lines() {
        for word in SOCKETS.into_iter().filter(|word| line.code.contains(word) && !here(word)) {
            findings.push(at(source, number, format!("{word} outside {NET}; ask its Dialer")));
        }
    }
    findings
}

/// Outside tests, an `unwrap` says on its line why it can not fail.
fn reasons(source: &Source) -> Vec<Finding> {
    let bare = source
        .product_lines()
        .filter(|(_, line)| line.code.contains(".unwrap()") && line.comment.trim().is_empty());
    bare.map(|(number, _)| {
        at(source, number, "unwrap() without a reason on its line; say why, or use expect or ?")
    })
    .collect()
}

fn no_unsafe(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        if word_at(&line.code, "unsafe").is_none() {
            continue;
        }
        if !UNSAFE.contains(&source.house()) {
            findings.push(at(source, index + 1, "unsafe outside the shell; find a safe wrapper"));
        } else if !explained(source, index) {
            findings.push(at(source, index + 1, "unsafe without a SAFETY: line; say why it is sound"));
        }
    }
    findings
}

/// `SAFETY:` stands on the line, in the comment right above it, or above the `unsafe impl` it belongs to: the methods of
/// an unsafe trait are unsafe because the trait is.
fn explained(source: &Source, index: usize) -> bool {
    let code = source.lines[index].code.trim_start();
    let method = code.len() < source.lines[index].code.len() && code.starts_with("unsafe fn ");
    let holder = (0..index).rev().find(|&at| {
        let code = &source.lines[at].code;
        !code.trim().is_empty() && !code.starts_with([' ', '\t', '}'])
    });
    if let Some(holder) = holder.filter(|&at| method && source.lines[at].code.starts_with("unsafe impl")) {
        return explained(source, holder);
    }
    let says = |at: usize| source.lines[at].comment.contains("SAFETY:");
    let above = (0..index).rev().take_while(|&at| {
        let line = &source.lines[at];
        (line.code.trim().is_empty() && !line.comment.is_empty()) || line.code.trim().starts_with("#[")
    });
    says(index) || above.into_iter().any(says)
}

fn forbids_unsafe(source: &Source) -> Option<Finding> {
    let file = source.path.strip_prefix("crates/")?.split_once('/')?.1;
    let is_root = matches!(file, "src/lib.rs" | "src/main.rs");
    let forbids = source.lines.iter().any(|line| line.code.contains("#![forbid(unsafe_code)]"));
    let text = "no #![forbid(unsafe_code)]; only the shell may do without";
    (is_root && source.house() != "shell" && !forbids).then(|| Finding::new(&source.path, None, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&[Source::parse(path, text)]).iter().map(Finding::to_string).collect()
    }

    fn one(path: &str, text: &str, word: &str) {
        let found = found(path, text);
        assert!(found.len() == 1 && found[0].contains(word), "{path}: {text}: {found:?}");
    }

    fn none(path: &str, text: &str) {
        assert_eq!(found(path, text), [""; 0], "{path}: {text}");
    }

    #[test]
    fn async_has_its_rooms() {
        one("crates/engine/src/a.rs", "async fn a() {}", "async");
        one("crates/shell/src/tcp.rs", "x.await;", "async");
        one("crates/trackerd/src/a.rs", "let x = async { 1 };", "async");
        none("crates/shell/src/http/get.rs", "async fn a() {}");
        none("crates/shell/src/mapping/mod.rs", "async fn a() {}");
        none("crates/discovery/src/a.rs", "x.awaits(y);");
        none("crates/session/src/a.rs", "async fn a() { b.await }");
        none("crates/engine/src/a.rs", "use async_broadcast::x; // async\nlet a = \"async\";");
    }

    #[test]
    fn nothing_is_shared_below_session() {
        one("crates/shell/src/disk/pool.rs", "a: Arc<Mutex<B>>,", "Arc<Mutex");
        one("crates/shell/src/disk/pool.rs", "a: Rc< RefCell<B>>,", "Rc<RefCell");
        none("crates/shell/src/disk/pool.rs", "a: Mutex<B>,");
        none("crates/shell/src/mailbox.rs", "a: Arc<Mutex<B>>,");
        none("crates/session/src/a.rs", "a: Arc<Mutex<B>>,");
        none("crates/shell/src/disk/tests.rs", "a: Arc<Mutex<B>>,");
    }

    #[test]
    fn pure_crates_know_no_world() {
        for (word, _) in IMPURE {
            let found = found("crates/package/src/a.rs", &format!("use {word};"));
            assert!(!found.is_empty() && found.iter().all(|line| line.contains(word)), "{found:?}");
        }
        none("crates/shell/src/a.rs", "let a = Instant::now();");
        none("crates/package/src/a.rs", "/// Instant\n#[cfg(test)]\nmod tests { use std::fs; }");
    }

    #[test]
    fn sockets_are_opened_in_one_place() {
        for word in SOCKETS {
            one("crates/session/src/a.rs", &format!("let a = {word}(b);"), word);
            none("crates/shell/src/net/a.rs", &format!("let a = {word}(b);"));
            none("crates/shell/tests/a.rs", &format!("let a = {word}(b);"));
            none("crates/shell/src/a.rs", &format!("#[cfg(test)]\nmod tests {{ fn a() {{ {word}(b); }} }}"));
            none("xtask/src/a.rs", &format!("let a = {word}(b);"));
        }
        one("crates/shell/src/tcp.rs", "use std::x; socket2::Socket::new(a)", "Socket::new");
        none("crates/shell/src/http/get.rs", "Client::builder()");
    }

    #[test]
    fn unwrap_gives_a_reason() {
        one("crates/cli/src/a.rs", "a.unwrap();", "unwrap");
        one("xtask/src/a.rs", "a.unwrap();", "unwrap");
        none("crates/cli/src/a.rs", "a.unwrap(); // checked above");
        none("crates/cli/src/a.rs", "a.unwrap_or(1);\n#[cfg(test)]\nmod tests { fn a() { b.unwrap(); } }");
        none("crates/cli/tests/a.rs", "a.unwrap();");
    }

    #[test]
    fn unsafe_is_the_shells_and_explained() {
        one("crates/engine/src/a.rs", "unsafe { a() }", "outside");
        one("crates/shell/src/a.rs", "unsafe { a() }", "SAFETY");
        none("crates/shell/src/a.rs", "// SAFETY: a is\n// sound\n#[inline]\nunsafe fn a() {}");
        none("crates/shell/src/a.rs", "unsafe { a() } // SAFETY: so");
        let implementation = "unsafe impl A for B {\n    fn c() {}\n\n    unsafe fn a() {}\n}";
        none("fuzz/src/a.rs", &format!("// SAFETY: so\n{implementation}"));
        assert_eq!(found("fuzz/src/a.rs", implementation).len(), 2);
        one("crates/cli/src/lib.rs", "mod a;", "forbid");
        none("crates/cli/src/lib.rs", "#![forbid(unsafe_code)]");
        none("crates/shell/src/lib.rs", "mod a;");
    }
}
