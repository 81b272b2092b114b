//! The pictures in a browser: pages ask nothing of the network and complain of nothing, are walked with the keyboard,
//! have names for those who cannot see them; no texts of a picture lie on one another. Skipped where there is none.

mod devtools;

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::devtools::{Browser, installed};

/// A test of a page that a command writes.
type Test = fn(&mut Browser) -> Result<()>;

fn main() -> std::process::ExitCode {
    let Some(program) = installed() else {
        println!("skipped: the pictures in a browser: chromium is not installed (`cargo xtask setup` installs it)");
        return libtest_mimic::run(&Arguments::from_args(), Vec::new()).exit_code();
    };
    let tests: [(&str, Test); 8] = [
        ("pages_are_quiet", pages_are_quiet),
        ("names_are_no_markup", names_are_no_markup),
        ("the_keyboard_opens_a_fold", the_keyboard_opens_a_fold),
        ("all_cells_have_names", all_cells_have_names),
        ("cards_are_walked", cards_are_walked),
        ("dark_and_print", dark_and_print),
        ("no_texts_overlap", no_texts_overlap),
        ("marks_are_readable", marks_are_readable),
    ];
    // one for all of them: it takes longer to start than to open a page
    let shared: Arc<Mutex<Option<Browser>>> = Arc::default();
    let trials = tests.into_iter().map(|(name, test)| {
        let (program, shared) = (program.clone(), shared.clone());
        Trial::test(name, move || {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let run = |shared: &mut Option<Browser>| {
                let browser = match shared {
                    Some(browser) => browser,
                    none => none.insert(Browser::start(&program)?),
                };
                test(browser)
            };
            run(&mut shared).map_err(|error| Failed::from(format!("{error:#}")))
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// What a command draws, in a file.
struct Drawn {
    _folder: TempDir,
    file: PathBuf,
}

fn shop() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop"))
}

fn draw(args: &str) -> Result<Drawn> {
    let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
        .args(args.split_whitespace())
        .current_dir(shop())
        .output()
        .context("cannot start policyctl")?;
    ensure!(output.stderr.is_empty(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    let folder = TempDir::new().context("cannot make a folder")?;
    let file = folder.path().join(if args.contains("-o svg") { "picture.svg" } else { "picture.html" });
    fs::write(&file, output.stdout).context("cannot write it")?;
    Ok(Drawn { _folder: folder, file })
}

const PAGES: [&str; 7] = [
    "matrix -o html -f k8s -f host",
    "diff -o html k8s new",
    "graph -o html -f k8s --denied",
    "graph -o html -f k8s --focus shop/db-0",
    "explain -o html -f k8s shop/deploy/wbe shop/db-0:5432",
    "explain -o html -f k8s shop/deploy/web shop/db-0:5432",
    "explain -o html -f k8s shop/deploy/web shop/sts/db",
];

fn pages_are_quiet(browser: &mut Browser) -> Result<()> {
    for args in PAGES {
        let page = draw(args)?;
        browser.open(&page.file)?;
        ensure!(browser.faults().is_empty(), "{args}: {:#?}", browser.faults());
        let title = browser.value("document.title")?;
        ensure!(title.as_str().is_some_and(|title| title.ends_with("policyctl")), "{args}: {title}");
        // what the test itself brings about is noticed
        browser.value("fetch('https://example.invalid/').catch(() => console.error('no'))")?;
        browser.value("new Promise((done) => setTimeout(done))")?;
        ensure!(!browser.faults().is_empty(), "a request and a complaint go unnoticed");
    }
    Ok(())
}

fn names_are_no_markup(browser: &mut Browser) -> Result<()> {
    let folder = TempDir::new().context("cannot make a folder")?;
    let evil = "</script><script>window.hit=1</script><img src=x onerror=window.hit=1>\"'";
    let pod = |name: &str, address: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "a", "labels": {"app": evil}},
            "spec": {"containers": [{"name": "c"}]}, "status": {"podIPs": [{"ip": address}]},
        })
    };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [pod(evil, "10.0.0.1"), pod("b", "10.0.0.2")]});
    let objects = folder.path().join("objects.json");
    fs::write(&objects, list.to_string()).context("cannot write it")?;
    let mut drawn = 0;
    for args in ["matrix -o html", "graph -o html", "graph -o html --focus a/b", "explain -o html a/b ip:10.0.0.1:80"] {
        let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
            .args(args.split(' '))
            .arg("-f")
            .arg(&objects)
            .output()
            .context("cannot start policyctl")?;
        let file = folder.path().join("page.html");
        fs::write(&file, &output.stdout).context("cannot write it")?;
        let said = String::from_utf8_lossy(&output.stdout);
        drawn += usize::from(said.contains("window.hit=1"));
        browser.open(&file)?;
        ensure!(!said.is_empty(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        ensure!(browser.value("window.hit === undefined")? == true, "{args}: the name was run");
        ensure!(browser.value("document.images.length")? == 0, "{args}: the name became an image");
        ensure!(browser.faults().is_empty(), "{args}: {:#?}", browser.faults());
    }
    ensure!(drawn > 0, "no page shows the name");
    Ok(())
}

fn the_keyboard_opens_a_fold(browser: &mut Browser) -> Result<()> {
    let page = draw("matrix -o html -f k8s")?;
    browser.open(&page.file)?;
    let rows = "document.querySelectorAll('#sheet tbody tr').length";
    let stops = "document.querySelectorAll('#sheet [tabindex=\"0\"]').length";
    let all = browser.value(rows)?;
    browser.press("Tab")?;
    ensure!(browser.value("document.activeElement.tagName")? == "TD", "the first stop is no cell");
    ensure!(browser.value(stops)? == 1, "there is more than one stop");
    browser.press("-")?;
    let folded = browser.value(rows)?;
    ensure!(folded.as_u64() < all.as_u64(), "{all} rows are {folded} when they are folded");
    // to the name of a namespace, and in
    for _ in 0..9 {
        browser.press("ArrowLeft")?;
    }
    for _ in 0..9 {
        browser.press("ArrowUp")?;
    }
    let expanded = "document.activeElement.getAttribute('aria-expanded')";
    browser.press("ArrowDown")?;
    ensure!(browser.value("document.activeElement.getAttribute('aria-label')")? == "namespace shop", "not at shop");
    ensure!(browser.value(expanded)? == "false", "it is not folded");
    browser.press("Enter")?;
    ensure!(browser.value(expanded)? == "true", "it is not open");
    ensure!(browser.value(rows)?.as_u64() > folded.as_u64(), "nothing was opened");
    ensure!(browser.value(stops)? == 1, "there is more than one stop");
    browser.press("Enter")?;
    ensure!(browser.value(rows)? == folded, "it is not folded again");
    ensure!(browser.faults().is_empty(), "{:#?}", browser.faults());
    Ok(())
}

/// The nodes of these roles, as a screen reader is told of them.
fn told(browser: &mut Browser, roles: &[&str]) -> Result<Vec<String>> {
    let tree = browser.ask("Accessibility.getFullAXTree", json!({}))?;
    let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
    let is = |node: &&Value| roles.iter().any(|role| node["role"]["value"] == *role) && node["ignored"] != true;
    let name = |node: &Value| node["name"]["value"].as_str().unwrap_or_default().to_owned();
    Ok(nodes.iter().filter(is).map(name).collect())
}

fn all_cells_have_names(browser: &mut Browser) -> Result<()> {
    for args in ["matrix -o html -f k8s -f host", "diff -o html k8s new"] {
        let page = draw(args)?;
        browser.open(&page.file)?;
        let cells = told(browser, &["gridcell"])?;
        ensure!(cells.len() > 80, "{args}: {} cells", cells.len());
        let nameless = cells.iter().filter(|name| !name.contains(" to ")).count();
        // the corner says how the grid is read
        ensure!(nameless <= 1, "{args}: {nameless} cells have no name");
        let heads = told(browser, &["rowheader", "columnheader"])?;
        ensure!(!heads.is_empty() && heads.iter().all(|name| !name.is_empty()), "{args}: {heads:?}");
        ensure!(told(browser, &["grid"])?.iter().all(|name| name.contains("client")), "{args}: the grid has no name");
    }
    Ok(())
}

fn cards_are_walked(browser: &mut Browser) -> Result<()> {
    let page = draw("graph -o html -f k8s")?;
    browser.open(&page.file)?;
    let names = told(browser, &["button"])?;
    ensure!(names.iter().any(|name| name == "shop/sts/db"), "{names:?}");
    ensure!(names.iter().all(|name| !name.is_empty()), "{names:?}");
    browser.press("Tab")?;
    let at = "document.activeElement.getAttribute('aria-label')";
    let mut seen = vec![browser.value(at)?];
    for key in ["ArrowDown", "ArrowRight", "ArrowDown"] {
        browser.press(key)?;
        seen.push(browser.value(at)?);
    }
    let apart = seen.windows(2).all(|two| two[0] != two[1]);
    ensure!(apart && seen.iter().all(Value::is_string), "{seen:?}");
    browser.press("Enter")?;
    let said = browser.value("document.getElementById('said').textContent")?;
    let name = seen[3].as_str().unwrap_or_default();
    ensure!(said.as_str().is_some_and(|said| said.starts_with(name)), "{said}");
    ensure!(
        browser.value("document.querySelectorAll('.link.dimmed').length")?.as_u64() > Some(0),
        "all lines are seen"
    );
    browser.press("Escape")?;
    ensure!(browser.value("document.querySelectorAll('.dimmed').length")? == 0, "some lines are not seen");
    Ok(())
}

fn dark_and_print(browser: &mut Browser) -> Result<()> {
    let ground = "getComputedStyle(document.body).backgroundColor";
    for args in PAGES {
        let page = draw(args)?;
        browser.open(&page.file)?;
        let mut grounds = Vec::new();
        for (media, scheme) in [("screen", "light"), ("screen", "dark"), ("print", "dark")] {
            let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
            browser.ask("Emulation.setEmulatedMedia", json!({"media": media, "features": features}))?;
            grounds.push(browser.value(ground)?);
        }
        ensure!(grounds[0] != grounds[1] && grounds[0] == grounds[2], "{args}: {grounds:?}");
        let keys = "[...document.querySelectorAll('.keys')].every((e) => getComputedStyle(e).display === 'none')";
        ensure!(browser.value(keys)? == true, "{args}: keys are of no use in print");
        let pdf = browser.ask("Page.printToPDF", json!({}))?;
        ensure!(pdf["data"].as_str().is_some_and(|data| data.len() > 5000), "{args}: nothing is printed");
        browser.ask("Emulation.setEmulatedMedia", json!({"media": "", "features": []}))?;
    }
    Ok(())
}

/// Pairs of texts that share more than a hair's breadth.
const OVERLAPS: &str = "(() => {
  const texts = [...document.querySelectorAll('text')].filter((text) => text.textContent.trim());
  const boxes = texts.map((text) => text.getBoundingClientRect());
  const found = [];
  for (let one = 0; one < boxes.length; one += 1) {
    for (let other = one + 1; other < boxes.length; other += 1) {
      const [a, b] = [boxes[one], boxes[other]];
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 1 && y > 3) found.push(`${texts[one].textContent} / ${texts[other].textContent} (${x} by ${y})`);
    }
    if (boxes[one].right > document.documentElement.viewBox.baseVal.width) found.push(`${texts[one].textContent} is cut off`);
  }
  return found;
})()";

/// How wide ten letters are that every font has at another width.
const METRICS: &str = "(() => {
  const text = document.createElementNS('http://www.w3.org/2000/svg', 'text');
  text.textContent = 'mmmmmmmmmm';
  document.documentElement.append(text);
  const width = text.getComputedTextLength();
  text.remove();
  return width;
})()";

/// Ends with names longer than the boxes that they are drawn in.
const LONG_SOURCE: &str =
    "payment-services-staging-eu-central/recommendation-engine-batch-worker-canary-6c9f7d8b54-x2x4z";
const LONG_DESTINATION: &str = "payment-services-staging-eu-central/settlement-reconciliation-database-primary-0";

fn no_texts_overlap(browser: &mut Browser) -> Result<()> {
    let any = draw("matrix -o svg -f k8s")?;
    browser.open(&any.file)?;
    if browser.value(METRICS)?.as_f64().is_none_or(|width| (width - 100.0).abs() > 1.0) {
        println!("skipped: whether texts overlap: no font has the widths of Arial (fonts-liberation has)");
        return Ok(());
    }
    for args in [
        "matrix -o svg -f k8s -f host --ip out=8.8.8.8",
        "diff -o svg k8s new",
        "graph -o svg -f k8s --denied",
        "graph -o svg -f k8s --focus shop/db-0",
        "graph -o svg -f k8s --focus shop/cache-0",
        "explain -o svg -f k8s shop/deploy/wbe shop/db-0:5432",
        "explain -o svg -f k8s shop/deploy/web shop/sts/db",
        "explain -o svg -f k8s shop/deploy/web shop/svc/db",
        &format!("explain -o svg -f long {LONG_SOURCE} {LONG_DESTINATION}:5432"),
    ] {
        let picture = draw(args)?;
        browser.open(&picture.file)?;
        let found = browser.value(OVERLAPS)?;
        ensure!(found == json!([]), "{args}: {found:#}");
    }
    Ok(())
}

/// The least contrast of a cell's mark against the cell (WCAG 2.2, 1.4.3 asks for 4.5).
const CONTRAST: &str = "(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[0-9.]+/g).map(Number)
      .map((part) => part / 255).map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let least = 21;
  for (const sample of document.querySelectorAll('td[tabindex], .sample, p, th, footer')) {
    const style = getComputedStyle(sample);
    let ground = style.backgroundColor;
    if (ground === 'rgba(0, 0, 0, 0)') ground = getComputedStyle(document.body).backgroundColor;
    const all = [ground];
    if (sample.textContent.trim() && style.backgroundImage !== 'none') all.push(style.backgroundImage.match(/rgb\\([^)]*\\)/)[0]);
    for (const one of sample.textContent.trim() ? all : []) {
      const [a, b] = [light(style.color), light(one)].sort((x, y) => y - x);
      least = Math.min(least, (a + 0.05) / (b + 0.05));
    }
  }
  return least;
})()";

fn marks_are_readable(browser: &mut Browser) -> Result<()> {
    for args in ["matrix -o html -f k8s -f host", "diff -o html k8s new", "graph -o html -f k8s"] {
        let page = draw(args)?;
        browser.open(&page.file)?;
        for scheme in ["light", "dark"] {
            let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
            browser.ask("Emulation.setEmulatedMedia", json!({"media": "screen", "features": features}))?;
            let least = browser.value(CONTRAST)?;
            ensure!(least.as_f64().is_some_and(|least| (4.5..21.0).contains(&least)), "{args}, {scheme}: {least}");
        }
    }
    Ok(())
}
