//! Sockets that systemd opened for us and passed on (socket activation, `sd_listen_fds(3)`).
//!
//! A socket is found by its address: the listener with that address takes it, and binds nothing. One descriptor feeds all
//! cores: each worker has a duplicate of it, the kernel tells all of them of a connection, and whichever is free accepts
//! it. (`SO_REUSEPORT` is no way to more sockets here: only the user who bound the first one may join it.) Who opens as
//! many sockets as there are workers, with `ReusePort=yes`, gives each worker its own.
//!
//! The descriptor stays with systemd as well: while the gateway restarts, connections wait in its queue.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::SockRef;
use thiserror::Error;

use crate::config::{ListenerConfig, Serves};

/// Descriptors that a process can have, where the kernel is not told otherwise (`fs.nr_open`).
const MOST_DESCRIPTORS: usize = 1 << 20;

/// A descriptor that was passed is of no use.
#[derive(Debug, Error)]
pub enum InheritedError {
    /// How many there are is not said.
    #[error(
        "LISTEN_FDS is no number of descriptors, though LISTEN_PID names this process; have it say how many were passed, or unset both"
    )]
    NoCount,
    /// It is no TCP socket.
    #[error(
        "descriptor {index} of LISTEN_FDS cannot be used ({source}); a socket unit for the gateway has ListenStream= with ports alone"
    )]
    NoTcp {
        /// Which of them, from 0.
        index: usize,
        /// The system's reason.
        source: io::Error,
    },
    /// It is connected to somebody.
    #[error("the socket {address} that systemd passed does not listen; its unit needs Accept=no")]
    NotListening {
        /// Its own address.
        address: SocketAddr,
    },
}

/// The sockets that were passed and nobody has taken yet.
#[derive(Default)]
pub struct Inherited {
    sockets: Vec<Passed>,
}

struct Passed {
    socket: TcpListener,
    address: SocketAddr,
    /// `FileDescriptorName=` of its unit.
    name: String,
}

impl Inherited {
    /// What the environment says was passed to this process; nothing if it says nothing, or does not name
    /// this one (`sd_listen_fds(3)`). Must be
    /// called before the first thread is started, as it takes the variables away.
    ///
    /// # Errors
    /// [`InheritedError`].
    pub fn from_env() -> Result<Self, InheritedError> {
        let number = |variable| std::env::var_os(variable).map(|value| value.to_str().and_then(digits));
        if number("LISTEN_PID").flatten() != usize::try_from(std::process::id()).ok() {
            return Ok(Self::default());
        }
        if number("LISTEN_FDS").is_some_and(|count| count.is_none_or(|count| count > MOST_DESCRIPTORS)) {
            return Err(InheritedError::NoCount);
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut descriptors = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..descriptors.len() {
            let no_tcp = |source| InheritedError::NoTcp { index, source };
            let Some(socket) = descriptors.take_tcp_listener(index).map_err(no_tcp)? else { continue };
            let address = socket.local_addr().map_err(no_tcp)?;
            if !SockRef::from(&socket).is_listener().map_err(no_tcp)? {
                return Err(InheritedError::NotListening { address });
            }
            let name = names.next().unwrap_or_default().to_owned();
            sockets.push(Passed { socket, address, name });
        }
        Ok(Self { sockets })
    }

    /// Whether one of them is at `address`.
    #[must_use]
    pub fn holds(&self, address: SocketAddr) -> bool {
        self.at(address).next().is_some()
    }

    /// What is wrong with them for these listeners, each with `workers`: all of it, with the index of the listener that it
    /// is about, if there is one.
    #[must_use]
    pub fn problems(&self, listeners: &[ListenerConfig], workers: usize) -> Vec<(Option<usize>, String)> {
        let mut problems = Vec::new();
        for Passed { address, .. } in &self.sockets {
            if !listeners.iter().any(|listener| same(listener.address, *address)) {
                let problem = format!(
                    "systemd passed a socket at {address}, which no [[listener]] has as its address; write address = \"{address}\", \
                     or let the socket unit open the address of a listener"
                );
                problems.push((None, problem));
            }
        }
        for (index, listener) in listeners.iter().enumerate() {
            // Administrators are served off the workers, by one who accepts.
            let most = if listener.serves == Serves::Admin { 1 } else { workers };
            let passed = self.at(listener.address).count();
            if passed > most {
                let problem = format!(
                    "systemd passed {passed} sockets at this address, and {most} can accept; open {most} at most"
                );
                problems.push((Some(index), problem));
            }
            let misnamed = |name: &str| Serves::parse(name).is_some_and(|serves| serves != listener.serves);
            if let Some(other) = self.at(listener.address).find(|passed| misnamed(&passed.name)) {
                let (name, serves) = (&other.name, listener.serves.as_str());
                let problem =
                    format!("systemd calls the socket at this address {name:?}, but this listener serves {serves:?}");
                problems.push((Some(index), problem));
            }
        }
        problems
    }

    /// Takes those at `address`, for each of `workers` one that it has for itself or shares; `None` if there are none.
    pub(super) fn take(&mut self, address: SocketAddr, workers: usize) -> Option<io::Result<Vec<TcpListener>>> {
        let taken: Vec<_> = self.sockets.extract_if(.., |passed| same(passed.address, address)).collect();
        if taken.is_empty() {
            return None;
        }
        let duplicate = |passed: &Passed| {
            passed.socket.set_nonblocking(true)?;
            passed.socket.try_clone()
        };
        Some(taken.iter().cycle().take(workers).map(duplicate).collect())
    }

    fn at(&self, address: SocketAddr) -> impl Iterator<Item = &Passed> {
        self.sockets.iter().filter(move |passed| same(passed.address, address))
    }
}

/// Digits alone: a sign is none.
fn digits(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Scopes and flow labels of IPv6 are not written in a configuration.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip() == other.ip() && one.port() == other.port()
}
