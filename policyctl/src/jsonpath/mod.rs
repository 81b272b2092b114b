//! Templates of `-o jsonpath=`, in the dialect that `kubectl` documents
//! (<https://kubernetes.io/docs/reference/kubectl/jsonpath/>): text, and expressions in braces. It is none of RFC 9535,
//! which has no `range`, no text and no escaped dots. Entry points: [`Template::parse`] and [`Template::fill`].

mod eval;
mod parse;

pub(crate) use self::parse::Template;

/// A step from values to other values.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// `.name`, `['name']`
    Field(String),
    /// `.*`, `[*]`
    All,
    /// `..`
    Descend,
    /// `[2]`, `[-1]`, `[1:5:2]`: from, to, every how many.
    Slice(Slice),
    /// `['metadata.name']`: a path in a step.
    Inner(Vec<Self>),
    /// `['a','b']`, `[0,1]`
    Union(Vec<Self>),
    /// `[?(@.a == 'b')]`
    Filter(Box<Filter>),
}

/// Elements of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slice {
    One(i64),
    Range { from: Option<i64>, to: Option<i64>, step: i64 },
}

/// Where a path begins, and how it goes on.
#[derive(Clone, Debug, PartialEq)]
struct Path {
    from_root: bool,
    steps: Vec<Step>,
}

/// A condition on an element.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    /// Without one it is enough that the left side is there.
    compared: Option<(Comparison, Operand)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Path),
    Value(serde_json::Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Path(Path),
    /// `{range .items[*]}`...`{end}`
    Range(Path, Vec<Self>),
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn input() -> Value {
        json!({
            "kind": "List",
            "items": [
                {"kind": "None", "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
                 "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]}},
                {"kind": "None", "metadata": {"name": "127.0.0.2"},
                 "status": {"capacity": {"cpu": "8"}, "addresses": [
                    {"type": "LegacyHostIP", "address": "127.0.0.2"}, {"type": "another", "address": "127.0.0.3"}]}},
            ],
            "users": [
                {"name": "myself", "user": {}},
                {"name": "e2e", "user": {"username": "admin", "password": "secret"}},
            ],
            "numbers": [0, 1, 2, 3, 4, 5], "yes": true, "nothing": null,
        })
    }

    #[track_caller]
    fn check(template: &str, expected: &str) {
        let template = Template::parse(template).unwrap();
        assert_eq!(template.fill(&input()).unwrap(), expected);
    }

    #[test]
    fn the_documented_examples() {
        check("kind is {.kind}", "kind is List");
        check("{['kind']}", "List");
        check("{$.kind}", "List");
        check("{..name}", "127.0.0.1 127.0.0.2 myself e2e");
        check("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2");
        check("{.users[0].name}", "myself");
        check("{.items[*]['metadata.name', 'status.capacity']}", r#"127.0.0.1 127.0.0.2 {"cpu":"4"} {"cpu":"8"}"#);
        check(r#"{.users[?(@.name=="e2e")].user.password}"#, "secret");
        check(
            "{range .items[*]}[{.metadata.name}, {.status.capacity}] {end}",
            r#"[127.0.0.1, {"cpu":"4"}] [127.0.0.2, {"cpu":"8"}] "#,
        );
        check(r"{range .items[*]}{.metadata.name}{'\t'}{end}", "127.0.0.1\t127.0.0.2\t");
        check(r"{.items[0].metadata.labels.kubernetes\.io/hostname}", "127.0.0.1");
        check(r"{.items[0].metadata.labels['kubernetes\.io/hostname']}", "127.0.0.1");
        check("{@.kind}", "List");
    }

    #[test]
    fn elements_are_counted_from_both_ends() {
        check("{.numbers[-1]}", "5");
        check("{.numbers[1:3]}", "1 2");
        check("{.numbers[:2]}", "0 1");
        check("{.numbers[-2:]}", "4 5");
        check("{.numbers[::2]}", "0 2 4");
        check("{.numbers[0,5]}", "0 5");
        check("{.numbers[*]}", "0 1 2 3 4 5");
        check("{.numbers}", "[0,1,2,3,4,5]");
        check("{.numbers[9:12]}", "");
        let outside = Template::parse("{.numbers[6]}").unwrap().fill(&input()).unwrap_err();
        assert_eq!(outside, "[6] is out of bounds: there are 6 elements");
    }

    #[test]
    fn filters_compare() {
        check("{.numbers[?(@ > 3)]}", "4 5");
        check("{.numbers[?(@ <= 1)]}", "0 1");
        check("{.numbers[?(@!=2)]}", "0 1 3 4 5");
        check("{.users[?(@.user.username)].name}", "e2e");
        check("{.users[?(@.name != 'e2e')].name}", "myself");
        check("{.items[?(@.status.addresses[1])].metadata.name}", "127.0.0.2");
        check("{.users[?(@.name > 1)].name}", "");
        check("{.items[*].status.addresses[?(@.type=='another')].address}", "127.0.0.3");
        check("{.users[?(@.name==$.users[1].name)].name}", "e2e");
    }

    #[test]
    fn ranges_nest_and_know_the_root() {
        check(
            r#"{range .items[*]}{$.kind}:{range .status.addresses[*]}{.address},{end}{"\n"}{end}"#,
            "List:127.0.0.1,\nList:127.0.0.2,127.0.0.3,\n",
        );
        check("{range .missing[*]}x{end}done", "done");
    }

    #[test]
    fn what_is_missing_is_empty() {
        check("<{.missing.name}>", "<>");
        check("<{.nothing}>", "<>");
        check("{.yes}", "true");
        check("{.users[0].user}", "{}");
        check("", "");
    }

    #[test]
    fn braces_may_be_left_out() {
        check(".items[0].metadata.name", "127.0.0.1");
        check("$.kind", "List");
        check("kind", "kind");
    }

    #[test]
    fn mistakes_are_told() {
        #[track_caller]
        fn check(template: &str, expected: &str) {
            assert_eq!(Template::parse(template).unwrap_err(), expected);
        }
        check("{.items", "a brace is not closed: {.items");
        check("{.items[0}", "a bracket is not closed: [0");
        check("{range .items[*]}{.name}", "{range} has no {end}");
        check("{end}", "{end} has no {range}");
        check("{.items[x]}", "x is no index; write [0], [1:3], [*], ['name'] or [?(@.name=='x')]");
        check("{items}", "an expression begins with . or [ or $ or @ or a quote: items");
        check("{.users[?(@.name='x)]}", "a brace is not closed: {.users[?(@.name='x)]}");
        check("{.users[?(@.name='e2e')]}", "a filter compares with ==, !=, <, <=, > or >=: @.name='e2e'");
        check("{.users[?(@.name==e2e)]}", "e2e in a filter is neither a path (@.name) nor a value (1, 'text', true)");
        check("{'abc}", "a brace is not closed: {'abc}");
        check("{.a[1:2:0]}", "a slice can't go on by 0");
        check("{.a..}", "a name is missing after .. in .a..");
        check("{.a. b}", "a name is missing after . in .a. b");
    }
}
