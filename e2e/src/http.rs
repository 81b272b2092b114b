//! One question by HTTP/1.0 over a connection that is there: the answer comes in one piece, and the connection ends with it.

use std::io::{Read, Write};

use anyhow::{Context as _, Result};

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200, say.
    pub status: u16,
    /// All of it.
    pub body: String,
}

/// What a path shows.
pub(crate) fn get(connection: impl Read + Write, path: &str) -> Result<Answer> {
    ask(connection, "GET", path, "")
}

/// Asks; of what is asked for, `body` says more.
pub(crate) fn ask(mut connection: impl Read + Write, method: &str, path: &str, body: &str) -> Result<Answer> {
    let question =
        format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    connection.write_all(question.as_bytes()).with_context(|| format!("cannot ask for {path}"))?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).with_context(|| format!("no answer to {method} {path}"))?;
    parse(&answer).with_context(|| format!("what answers {method} {path} is not HTTP: {answer}"))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_answer() {
        let answer = parse("HTTP/1.0 404 Not Found\r\nDate: now\r\n\r\na\r\n\r\nb").expect("it is one");
        assert_eq!((answer.status, answer.body.as_str()), (404, "a\r\n\r\nb"));
        assert_eq!(parse("HTTP/1.0 200 OK\r\n"), None);
        assert_eq!(parse("SSH-2.0\r\n\r\n"), None);
    }
}
