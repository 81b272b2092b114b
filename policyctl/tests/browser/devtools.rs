//! A browser of this machine's, driven over a pipe: [`Browser::start`], [`Browser::open`].
//!
//! It speaks the Chrome DevTools Protocol, JSON documents with a zero byte behind each, on the file descriptors 3 and 4
//! (`--remote-debugging-pipe`). No port is opened.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the program may be called.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Where it is, if it is installed.
pub(crate) fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    NAMES.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()))
}

/// A running browser with one page.
pub(crate) struct Browser {
    process: Child,
    to: File,
    from: BufReader<File>,
    session: Option<String>,
    next: u64,
    /// What it told that nobody has asked for yet.
    events: Vec<Value>,
    _folder: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Browser {
    /// Starts it, with a profile of its own that goes with it.
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let folder = TempDir::new().context("cannot make a folder")?;
        let pipe = |name: &str| folder.path().join(name);
        for name in ["in", "out"] {
            let made = Command::new("mkfifo").arg(pipe(name)).status().context("cannot start mkfifo")?;
            ensure!(made.success(), "mkfifo failed");
        }
        // a shell, since it takes no code that nobody vouches for to hand on the descriptors 3 and 4
        let script = r#"exec "$1" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
            --disable-background-networking --disable-component-update --hide-scrollbars --window-size=1200,900 \
            --user-data-dir="$4" --remote-debugging-pipe about:blank 3<"$2" 4>"$3""#;
        let process = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(program)
            .args([pipe("in"), pipe("out"), pipe("profile")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start a shell")?;
        let to = OpenOptions::new().write(true).open(pipe("in")).context("cannot open the pipe to the browser")?;
        let from = BufReader::new(File::open(pipe("out")).context("cannot open the pipe from the browser")?);
        let mut browser = Self { process, to, from, session: None, next: 0, events: Vec::new(), _folder: folder };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.ask("Target.attachToTarget", attach)?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Network", "Runtime", "Log", "Accessibility"] {
            browser.ask(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Opens a file and waits until it is loaded. What it asks the network for and what it complains of are faults.
    pub(crate) fn open(&mut self, file: &Path) -> Result<()> {
        self.events.clear();
        self.ask("Page.navigate", json!({"url": format!("file://{}", file.display())}))?;
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.read()?;
            self.events.push(event);
        }
        Ok(())
    }

    /// What the page asked for beside itself, and what it complained of, since it was opened.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for event in &self.events {
            let params = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Network.requestWillBeSent" => {
                    let url = params["request"]["url"].as_str().unwrap_or_default();
                    if params["type"] != "Document" && !url.starts_with("data:") {
                        faults.push(format!("asks for {url}"));
                    }
                }
                "Runtime.exceptionThrown" | "Log.entryAdded" | "Runtime.consoleAPICalled" => {
                    faults.push(params.to_string());
                }
                _ => {}
            }
        }
        faults
    }

    /// The value of an expression of the page's script.
    pub(crate) fn value(&mut self, expression: &str) -> Result<Value> {
        let answer = self.ask("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}))?;
        ensure!(answer.get("exceptionDetails").is_none(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            let text = if key.len() == 1 {
                json!(key)
            } else if key == "Enter" {
                json!("\r")
            } else {
                json!("")
            };
            let code = if key == "Tab" { 9 } else { 0 };
            let event = json!({"type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code});
            self.ask("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Calls a method of the protocol.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Result<Value> {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).context("the browser is gone")?;
        loop {
            let answer = self.read()?;
            if answer["id"] == self.next {
                if let Some(error) = answer.get("error") {
                    bail!("{method}: {error}");
                }
                return Ok(answer["result"].clone());
            }
            self.events.push(answer);
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).context("cannot read from the browser")?;
        ensure!(bytes.pop() == Some(0), "the browser ended");
        serde_json::from_slice(&bytes).context("the browser speaks no JSON")
    }
}
