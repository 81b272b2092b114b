//! What of a state is told: `-n`, `-A` and `-l` as `kubectl` has them. The state is whole all the same, since a verdict
//! may depend on any namespace; [`Scope`] only chooses what is listed.

use std::{fmt, sync::Arc};

use policy_compiler::model::{Labels, Pod, Requirement, Selector};

/// Flags that limit what is listed.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// All namespaces, also where -n or the environment name one (without either, all are listed)
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only pods that have these labels, such as app=web,tier!=db or 'app in (web, db)'
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = selector)]
    pub(crate) selector: Option<Selector>,
}

/// Flags of commands that list: which state is meant, and what of it is listed.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Scoped {
    #[command(flatten)]
    pub(crate) state: super::Args,
    #[command(flatten)]
    pub(crate) scope: Args,
}

/// What is listed; by default everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    namespace: Option<String>,
    selector: Option<Selector>,
}

impl Scope {
    /// `namespace` is what `-n` or the environment say.
    pub(crate) fn new(args: &Args, namespace: Option<&str>) -> Self {
        let namespace = namespace.filter(|_| !args.all_namespaces).map(str::to_owned);
        Self { namespace, selector: args.selector.clone() }
    }

    /// Whether a pod is listed.
    pub(crate) fn has(&self, pod: &Pod) -> bool {
        self.has_namespace(&pod.name.namespace)
            && self.selector.as_ref().is_none_or(|selector| matches(selector, &pod.labels))
    }

    /// Whether anything of a namespace is.
    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }

    /// Whether nothing is left out.
    pub(crate) const fn is_everything(&self) -> bool {
        self.namespace.is_none() && self.selector.is_none()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, &self.selector) {
            (Some(namespace), None) => write!(f, "namespace {namespace}"),
            (Some(namespace), Some(_)) => write!(f, "namespace {namespace} and has the labels that -l asks for"),
            (None, _) => f.write_str("any namespace and has the labels that -l asks for"),
        }
    }
}

fn matches(selector: &Selector, labels: &Labels) -> bool {
    selector.requirements.iter().all(|requirement| requirement.matches(labels))
}

/// `kubectl`'s selectors: `a=b`, `a==b`, `a!=b`, `a`, `!a`, `a in (b, c)`, `a notin (b)`, joined by commas.
fn selector(text: &str) -> Result<Selector, String> {
    let requirements = parts(text).into_iter().map(requirement).collect::<Result<_, _>>()?;
    Ok(Selector { requirements })
}

/// Split at commas that are not in parentheses.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut begin, mut depth) = (0, 0_usize);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let text = text.trim();
    let wrong =
        || format!("{text:?} is no condition on labels; write a=b, a!=b, a, '!a', 'a in (b, c)' or 'a notin (b, c)'");
    let checked = |text: &str, may_be_empty: bool, letters: &str| {
        let text = text.trim();
        let is_fine = |letter: char| letter.is_ascii_alphanumeric() || letters.contains(letter);
        if (text.is_empty() && !may_be_empty) || !text.chars().all(is_fine) {
            return Err(wrong());
        }
        Ok(Arc::<str>::from(text))
    };
    let key = |text: &str| checked(text, false, "-_./");
    let value = |text: &str| checked(text, true, "-_.");
    if let Some((name, values)) = text.split_once('(') {
        let values = values.strip_suffix(')').ok_or_else(wrong)?;
        let mut values = values.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
        values.sort_unstable();
        values.dedup();
        return match name.trim().rsplit_once(char::is_whitespace) {
            Some((name, "in")) => Ok(Requirement::In(key(name)?, values)),
            Some((name, "notin")) => Ok(Requirement::NotIn(key(name)?, values)),
            _ => Err(wrong()),
        };
    }
    if let Some((name, one)) = text.split_once("!=") {
        return Ok(Requirement::NotIn(key(name)?, vec![value(one)?]));
    }
    if let Some((name, one)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Requirement::In(key(name)?, vec![value(one)?]));
    }
    match text.strip_prefix('!') {
        Some(name) => Ok(Requirement::DoesNotExist(key(name)?)),
        None => Ok(Requirement::Exists(key(text)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_kubectls() {
        let labels: Labels = [("app", "web"), ("a.b/tier", "front"), ("empty", "")]
            .into_iter()
            .map(|(key, value)| (Arc::from(key), Arc::from(value)))
            .collect();
        #[track_caller]
        fn check(text: &str, labels: &Labels, expected: bool) {
            assert_eq!(matches(&selector(text).unwrap(), labels), expected, "{text}");
        }
        for text in [
            "app=web",
            "app==web",
            "app != db",
            "app",
            "!other",
            "app in (db, web)",
            "app notin (db)",
            "other!=x",
            "a.b/tier=front,app=web",
            "app in (db,web),a.b/tier",
            "empty=",
            "other notin (a,b)",
            "empty in (,a)",
        ] {
            check(text, &labels, true);
        }
        for text in
            ["app=db", "app!=web", "other", "!app", "app in (db)", "app notin (web)", "app=web,other", "empty!="]
        {
            check(text, &labels, false);
        }
        for wrong in ["", "=a", "app in web", "app in (web", "a b", "app=a=b", "app of (a)", "app=web,", "!", "in (a)"]
        {
            assert!(selector(wrong).unwrap_err().contains("is no condition on labels"), "{wrong}");
        }
    }
}
