//! `top`: how a running gateway does, again and again, on a terminal.
//!
//! One thread waits for keys; everything else is one task, so what the terminal was is put back on every way out: a key, a
//! signal, an error, a panic.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{self, Clear, ClearType};
use crossterm::{cursor, execute, queue};
use http::Method;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::connection::{Connection, path};
use super::failure::Failure;
use super::status::{in_force, key, listener, log, readiness, requests, rotation, servers, span, store};
use crate::admin::{AdminClient, ClientError, Status};

#[derive(Args)]
pub(super) struct Top {
    #[command(flatten)]
    connection: Connection,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    every: u64,
}

impl Top {
    pub(super) fn run(self) -> ExitCode {
        let Self { connection, every } = self;
        if connection.json() {
            return connection.call::<Status>(Method::GET, &path(["status"]));
        }
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return connection.end(Err(Failure::NoTerminal));
        }
        let watched = connection.run(async |client| Ok(watch(&client, Duration::from_secs(every)).await));
        connection.end(watched.and_then(|outcome| outcome))
    }
}

/// Until a key or a signal ends it.
async fn watch(client: &AdminClient, every: Duration) -> Result<(), Failure> {
    // Before the terminal is touched: who cannot be reached is told as by every other command.
    let mut shown = Shown { status: look(client).await?, at: Instant::now(), rate: None, silent: None };
    let mut asked = Asked::listen()?;
    let mut screen = Screen::take()?;
    asked.read_keys()?;
    let mut next = tokio::time::interval_at(Instant::now() + every, every);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        screen.draw(&shown.lines(every))?;
        let pressed = tokio::select! {
            pressed = asked.next() => pressed,
            _ = next.tick() => tokio::select! {
                // A gateway that hangs keeps nobody here.
                pressed = asked.next() => pressed,
                seen = look(client) => {
                    shown.renew(seen);
                    Pressed::Other
                }
            },
        };
        if pressed == Pressed::Quit {
            return Ok(());
        }
    }
}

async fn look(client: &AdminClient) -> Result<Status, ClientError> {
    client.call(Method::GET, &path(["status"])).await
}

/// What was seen last.
struct Shown {
    status: Status,
    at: Instant,
    /// Requests a second between the last two looks.
    rate: Option<f64>,
    /// Why the last look brought nothing.
    silent: Option<String>,
}

impl Shown {
    #[expect(clippy::cast_precision_loss, reason = "requests of some seconds are far below what a double holds")]
    fn renew(&mut self, seen: Result<Status, ClientError>) {
        match seen {
            Ok(status) => {
                let (now, before) = (Instant::now(), self.status.requests);
                let seconds = now.duration_since(self.at).as_secs_f64().max(f64::EPSILON);
                // Fewer than before: another process answers.
                self.rate = status.requests.checked_sub(before).map(|count| count as f64 / seconds);
                (self.status, self.at, self.silent) = (status, now, None);
            }
            Err(error) => self.silent = Some(error.to_string()),
        }
    }

    fn lines(&self, every: Duration) -> Vec<Line> {
        let status = &self.status;
        let mut lines = Vec::new();
        let ready = if status.ready { "ready".to_owned() } else { format!("ready: {}", readiness(status)) };
        let version = &status.version;
        let up = span(status.uptime_seconds);
        lines.push(Line::heading(format!(
            " Sekisho {version}   up {up}   {ready}   every {} s   q quits",
            every.as_secs()
        )));
        if let Some(silent) = &self.silent {
            lines.push(Line::bad(format!(" {silent}")));
        }
        lines.push(Line::plain(""));
        let mut now = String::new();
        if let Some(rate) = self.rate {
            let _ = write!(now, "{rate:.1}/s now, "); // a String takes every write
        }
        lines.push(Line::plain(format!(" requests   {now}{}", requests(status))));
        lines.push(Line::plain(format!(" store      {}", store(status))));
        lines.push(Line::plain(format!(" sessions   {}", status.sessions)));
        lines.push(Line::plain(format!(" in force   {}", in_force(status))));
        lines.push(Line::plain(format!(" log        {}", log(status))));
        lines.push(Line::plain(""));
        lines.push(Line::heading(" listeners"));
        lines.extend(status.listeners.iter().map(|l| Line::plain(format!(" {:<24}{}", l.address, listener(l)))));
        lines.push(Line::heading(" upstreams"));
        for upstream in &status.upstreams {
            lines.extend(
                servers(upstream).map(|(text, is_ill)| Line::of(format!(" {:<24}{text}", upstream.name), is_ill)),
            );
        }
        lines.push(Line::heading(" keys"));
        let bad = |k: &crate::admin::KeyStatus| k.suspended || k.compromised;
        lines.extend(status.keys.iter().map(|k| Line::of(format!(" {:<24}{}", k.id, key(k)), bad(k))));
        if !status.rotations.is_empty() {
            lines.push(Line::heading(" rotations"));
            lines.extend(status.rotations.iter().map(|r| Line::plain(format!(" {:<24}{}", r.id, rotation(r)))));
        }
        lines
    }
}

/// One line of the screen.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    text: String,
    look: Option<Attribute>,
}

impl Line {
    fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), look: None }
    }

    fn heading(text: impl Into<String>) -> Self {
        Self { text: text.into(), look: Some(Attribute::Bold) }
    }

    fn bad(text: impl Into<String>) -> Self {
        Self { text: text.into(), look: Some(Attribute::Reverse) }
    }

    fn of(text: String, is_bad: bool) -> Self {
        if is_bad { Self::bad(text) } else { Self::plain(text) }
    }

    /// What fits into so many columns, and nothing that a terminal would obey: words of a configuration are in it.
    fn fitted(&self, columns: usize) -> String {
        self.text.chars().map(|c| if c.is_control() { '?' } else { c }).take(columns).collect()
    }
}

/// The terminal, as long as it is ours.
struct Screen(io::Stdout);

impl Screen {
    fn take() -> io::Result<Self> {
        let mut screen = Self(io::stdout());
        terminal::enable_raw_mode()?;
        // From here on its drop puts all back.
        execute!(screen.0, terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let (columns, rows) = terminal::size()?;
        queue!(self.0, cursor::MoveTo(0, 0))?;
        for (row, line) in (0..rows).zip(lines) {
            queue!(self.0, cursor::MoveTo(0, row))?;
            if let Some(look) = line.look {
                queue!(self.0, SetAttribute(look))?;
            }
            // The last column stays free: some terminals would go to the next line.
            let text = line.fitted(usize::from(columns).saturating_sub(1));
            queue!(self.0, Print(text), SetAttribute(Attribute::Reset), Clear(ClearType::UntilNewLine))?;
        }
        if lines.len() < usize::from(rows) {
            let next = u16::try_from(lines.len()).unwrap_or(rows);
            queue!(self.0, cursor::MoveTo(0, next), Clear(ClearType::FromCursorDown))?;
        }
        self.0.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing is left to do for a terminal that does not take it.
        let _ = execute!(self.0, cursor::Show, terminal::LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pressed {
    Quit,
    /// Another key, or the window has another size: draw again.
    Other,
}

/// Whoever may end it: keys, and signals to the process.
struct Asked {
    terminate: Signal,
    hangup: Signal,
    pressed: mpsc::UnboundedSender<Pressed>,
    keys: mpsc::UnboundedReceiver<Pressed>,
}

impl Asked {
    fn listen() -> io::Result<Self> {
        let (pressed, keys) = mpsc::unbounded_channel();
        Ok(Self { terminate: signal(SignalKind::terminate())?, hangup: signal(SignalKind::hangup())?, pressed, keys })
    }

    /// Has keys be heard. The thread that waits for them ends with the process.
    fn read_keys(&self) -> io::Result<()> {
        let pressed = self.pressed.clone();
        let wait = move || {
            while let Ok(event) = event::read() {
                if pressed.send(meaning(&event)).is_err() {
                    return;
                }
            }
            // The terminal is gone.
            let _ = pressed.send(Pressed::Quit);
        };
        std::thread::Builder::new().name("keys".to_owned()).spawn(wait).map(drop)
    }

    async fn next(&mut self) -> Pressed {
        tokio::select! {
            _ = self.terminate.recv() => Pressed::Quit,
            _ = self.hangup.recv() => Pressed::Quit,
            pressed = self.keys.recv() => pressed.unwrap_or(Pressed::Quit),
        }
    }
}

/// In raw mode Ctrl-C is a key like any other.
fn meaning(event: &Event) -> Pressed {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return Pressed::Other };
    let with_control = modifiers.contains(KeyModifiers::CONTROL);
    let quits = matches!(code, KeyCode::Char('q' | 'Q') | KeyCode::Esc)
        || (with_control && matches!(code, KeyCode::Char('c' | 'd')));
    if quits { Pressed::Quit } else { Pressed::Other }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::status;

    fn shown() -> Shown {
        Shown { status: status(), at: Instant::now(), rate: None, silent: None }
    }

    #[tokio::test]
    async fn what_is_ill_stands_out() {
        let mut shown = shown();
        shown.status.ready = false;
        shown.status.readiness.store = false;
        shown.silent = Some("no gateway answers".to_owned());
        let mut full = shown.status.upstreams[0].clone();
        (full.name, shown.status.upstreams[0].waiting) = ("reports".to_owned(), 0);
        full.servers.truncate(1);
        shown.status.upstreams.push(full);
        let lines = shown.lines(Duration::from_secs(2));
        assert_eq!(lines[0].text, " Sekisho 0.1.0   up 1 d 2 h   ready: NO: store   every 2 s   q quits");
        let bad: Vec<_> = lines.iter().filter(|line| line.look == Some(Attribute::Reverse)).collect();
        let expected = [
            "no gateway answers",
            "http://127.0.0.1:9001 DOWN, 4 connections",
            "http://127.0.0.1:9002 EJECTED, 4 connections",
            "http://127.0.0.1:9000 up, 4 connections, 2 requests WAITING",
            "SUSPENDED",
        ];
        assert_eq!(bad.len(), expected.len(), "{bad:?}");
        assert!(bad.iter().zip(expected).all(|(line, text)| line.text.contains(text)), "{bad:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_that_between_two_looks() {
        let mut shown = shown();
        tokio::time::advance(Duration::from_secs(2)).await;
        let mut next = status();
        next.requests += 30;
        shown.renew(Ok(next));
        assert_eq!(shown.rate, Some(15.0));
        assert!(shown.lines(Duration::from_secs(2)).iter().any(|line| line.text.contains("15.0/s now, 10.0/s")));
        let mut anew = status();
        anew.requests = 1;
        shown.renew(Ok(anew));
        assert_eq!(shown.rate, None, "it was started anew");
    }

    #[test]
    fn a_line_fits_and_moves_nothing() {
        assert_eq!(Line::plain("a\u{1b}[2Jb\n").fitted(80), "a?[2Jb?");
        assert_eq!(Line::plain("関所 a").fitted(3), "関所 ");
    }
}
