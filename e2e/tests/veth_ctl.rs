//! Class `veth`: `policyctl` asks a running agent.
#![forbid(unsafe_code)]

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use e2e::bed::{
    Outcome, Pod, Server, Site, Transport, Wiring,
    agent::program,
    is_root, probe,
    site::{Policy, peer},
};
use enforcer_abi::{LAYOUT_VERSION, RowKey, RowValue};
use serde_json::{Value, json};

const PORT: u16 = 8080;

/// `policyctl ARGS --agent SOCKET`
fn policyctl(site: &Site, args: &str) -> Result<Output> {
    let mut command = Command::new(program("policyctl")?);
    command.args(args.split(' ')).arg("--agent").arg(site.agent.socket());
    command.output().context("policyctl can't be started")
}

#[track_caller]
fn said(output: &Output, status: i32) -> Result<String> {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(status), "status {:?}\n{text}\n{errors}", output.status.code());
    Ok(text.into_owned())
}

#[test]
fn what_an_agent_enforces_is_told() -> Result<()> {
    if !is_root() {
        eprintln!("skipped: needs root");
        return Ok(());
    }
    let mut site = Site::start(Wiring::PointToPoint, &[])?;
    let (db, web, other) = (site.pod("db")?, site.pod("web")?, site.pod("other")?);
    let _server = Server::start(db.namespace(), "db", &[(Transport::Tcp, PORT)])?;
    site.enforce(&[Policy::ingress("db-ingress", &db, json!([{"from": [peer(&web)], "ports": [{"port": PORT}]}]))])?;
    let to = SocketAddr::new(db.addresses()[0], PORT);
    for (from, outcome) in [(&web, Outcome::Open), (&other, Outcome::Dropped)] {
        assert_eq!(probe(from.namespace(), Transport::Tcp, to, outcome)?.outcome, outcome);
    }

    status(&site)?;
    dump(&site)?;
    flows(&site, &web, &other, to)?;
    questions(&site)?;
    verify(&site)
}

fn status(site: &Site) -> Result<()> {
    let text = said(&policyctl(site, "status")?, 0)?;
    assert!(text.starts_with("n1  ready, 3 pods (3 enforced), sluice-agent "), "{text}");
    assert!(text.contains("\nn1    shop/db     enforced  shop/db-ingress  open    -\n"), "{text}");
    assert!(text.contains("DENIED   shop/other (") && text.contains("(isolated by shop/db-ingress)"), "{text}");
    let told: Value = serde_json::from_str(&said(&policyctl(site, "status -o json")?, 0)?)?;
    let db = &told["nodes"][0]["pods"][0];
    assert_eq!((&db["pod"], &db["packets"]["ingress"]["rule"]), (&json!("shop/db"), &json!(1)), "{told:#}");
    Ok(())
}

fn dump(site: &Site) -> Result<()> {
    let text = said(&policyctl(site, "dump shop/db")?, 0)?;
    let v4 = "  from  everybody else\n        nothing\n  from  shop/web (10.244.1.3), shop/web (fd00:10:244:1::3)\n        TCP 8080\n";
    assert!(text.contains(v4), "{text}");
    assert!(text.contains("egress  not isolated: everything passes"), "{text}");
    let nobody = policyctl(site, "dump shop/nobody")?;
    assert_eq!(nobody.status.code(), Some(3));
    let error = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(error.starts_with("error: no pod shop/nobody is on a node of the agents that were asked"), "{error}");
    Ok(())
}

fn flows(site: &Site, web: &Pod, other: &Pod, to: SocketAddr) -> Result<()> {
    let text = said(&policyctl(site, "flows --to shop/db --verdict allowed --port 8080")?, 0)?;
    let rule = "TCP/8080  ingress: a rule allows it: shop/db-ingress spec.ingress[0] from[0] ports[0]\n";
    assert!(text.contains("ALLOWED  shop/web (10.244.1.3) -> shop/db (10.244.1.2)") && text.contains(rule), "{text}");
    assert!(!text.contains("DENIED"), "{text}");
    let text = said(&policyctl(site, "flows --from shop/o* --verdict denied")?, 0)?;
    let lines = text.lines().filter(|line| line.ends_with("no rule allows it (isolated by shop/db-ingress)"));
    assert!(lines.count() == text.lines().count() && !text.is_empty(), "{text}");
    assert_eq!(said(&policyctl(site, "flows --protocol UDP")?, 0)?, "");

    let mut command = Command::new(program("policyctl")?);
    command.args(["flows", "-f", "-o", "jsonl", "--verdict", "denied", "--agent"]).arg(site.agent.socket());
    let mut following = command.stdout(Stdio::piped()).spawn().context("policyctl can't be started")?;
    let stdout = following.stdout.take().context("it is piped")?;
    let lines = BufReader::new(stdout).lines();
    // whatever happened before it was listened to doesn't come, so it happens again and again until it does
    let (seen, is_seen) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if seen.send(line).is_err() {
                return;
            }
        }
    });
    let first = (0..50).find_map(|_| {
        let denied = probe(other.namespace(), Transport::Tcp, to, Outcome::Dropped);
        let allowed = probe(web.namespace(), Transport::Tcp, to, Outcome::Open);
        let line = is_seen.recv_timeout(std::time::Duration::from_millis(200)).ok();
        line.filter(|_| denied.is_ok() && allowed.is_ok())
    });
    following.kill()?;
    following.wait()?;
    drop(is_seen);
    reading.join().map_err(|_| anyhow::anyhow!("reading has panicked"))?;
    let line: Value = serde_json::from_str(&first.context("nothing is told")?)?;
    let told = (&line["node"], &line["kind"], &line["remote"]["pod"], &line["policies"]);
    assert_eq!(told, (&json!("n1"), &json!("drop"), &json!("shop/other"), &json!(["shop/db-ingress"])));
    Ok(())
}

fn questions(site: &Site) -> Result<()> {
    let text = said(&policyctl(site, "explain shop/other shop/db:8080")?, 0)?;
    assert!(text.starts_with("DENIED    shop/other -> shop/db  TCP/8080      refused by ingress of db"), "{text}");
    assert!(text.contains("state: agent of node n1 (3 pods, 1 policy)"), "{text}");
    assert_eq!(said(&policyctl(site, "can shop/web shop/db:8080")?, 0)?, "yes  shop/web -> shop/db  TCP 8080\n");
    let text = said(&policyctl(site, "can shop/other shop/db:8080 --without shop/db-ingress")?, 0)?;
    assert!(text.starts_with("yes"), "{text}");
    Ok(())
}

/// What nobody would do is found: an entry of a kernel map that was changed, and one that was removed.
fn verify(site: &Site) -> Result<()> {
    assert_eq!(said(&policyctl(site, "verify")?, 0)?, "n1  3 pods: intended = compiled = loaded\n");
    let rows =
        MapData::from_pin(site.pins().join(format!("v{LAYOUT_VERSION}/ROWS"))).context("ROWS can't be opened")?;
    let mut rows: HashMap<_, RowKey, RowValue> = Map::HashMap(rows).try_into()?;
    let (key, row) = rows.iter().next().context("there is no row")??;
    rows.insert(key, RowValue { bits: [!row.bits[0], row.bits[1]], ..row }, 0)?;
    let text = said(&policyctl(site, "verify")?, 1)?;
    assert!(text.starts_with("n1  3 pods: 1 difference\n"), "{text}");
    let place =
        format!("ingress table {:016x}, peer class {:016x} (shop/web 10.244.1.3 and 1 more), ", key.table, key.class);
    assert!(
        text.contains(&format!(
            "n1    shop/db  loaded  {place}ports that no rule names: intended closed, loaded open\n"
        )),
        "{text}"
    );
    rows.remove(&key)?;
    let text = said(&policyctl(site, "verify")?, 1)?;
    assert!(text.contains(&format!("{place}TCP/8080: intended open, loaded closed (no row)\n")), "{text}");
    rows.insert(key, row, 0)?;
    said(&policyctl(site, "verify")?, 0)?;
    let told: Value = serde_json::from_str(&said(&policyctl(site, "verify -o json")?, 0)?)?;
    assert_eq!(told["nodes"], json!([{"node": "n1", "pods": 3, "notEnforced": 0, "differences": 0}]));
    Ok(())
}

#[test]
fn an_agent_out_of_reach_is_named() -> Result<()> {
    for command in ["status", "verify", "flows", "dump shop/db", "can a/b c/d:80"] {
        let mut policyctl = Command::new(program("policyctl")?);
        policyctl.args(command.split(' ')).args(["--agent", "/nowhere/agent.sock"]);
        let output = policyctl.output().context("policyctl can't be started")?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("error: no agent answers at /nowhere/agent.sock: No such file or directory"), "{error}");
        assert_eq!(output.status.code(), Some(3), "{command}");
    }
    Ok(())
}
