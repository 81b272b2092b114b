//! Where the boxes of a graph are: [`Layout::new`]. Boxes are in columns, so that most lines lead to the right; a line
//! that passes a column has a lane of its own there, between boxes. After Sugiyama, Tagawa and Toda (1981): columns,
//! lanes, order, places.

use std::collections::{BTreeMap, BTreeSet};

/// What is laid out.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The heights of the boxes.
    pub(crate) heights: Vec<i32>,
    /// Who has lines to whom.
    pub(crate) links: BTreeSet<(usize, usize)>,
    /// Boxes that belong to the left, and to the right.
    pub(crate) first: Vec<usize>,
    pub(crate) last: Vec<usize>,
}

/// Where things are.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Column and top of each box.
    pub(crate) places: Vec<(usize, i32)>,
    /// The lanes of a box's lines, to the right or not: in which column, and at which height.
    pub(crate) lanes: BTreeMap<(usize, bool), BTreeMap<usize, i32>>,
}

/// Between boxes of a column.
const GAP: i32 = 22;
/// A lane's.
const LANE: i32 = 12;
/// The last column of a chain.
const WIDEST: usize = 4;
/// How often the order is improved.
const SWEEPS: usize = 6;

/// In a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Box(usize),
    /// Of the lines that begin at a box and lead to the right, or to the left.
    Lane(usize, bool),
}

impl Layout {
    /// Places everything.
    pub(crate) fn new(plan: &Plan) -> Self {
        let column = columns(plan);
        let count = column.iter().max().map_or(0, |last| last + 1);
        let mut items: Vec<Vec<Item>> = vec![Vec::new(); count];
        for (place, column) in column.iter().enumerate() {
            items[*column].push(Item::Box(place));
        }
        for (from, to) in &plan.links {
            let (first, last) = (column[*from].min(column[*to]), column[*from].max(column[*to]));
            let lane = Item::Lane(*from, column[*from] < column[*to]);
            for between in items.iter_mut().take(last).skip(first + 1) {
                if !between.contains(&lane) {
                    between.push(lane);
                }
            }
        }
        let neighbours = neighbours(&items, &plan.links, &column);
        order(&mut items, &neighbours);
        let tops = tops(plan, &items, &neighbours);
        let places = (0..column.len()).map(|place| (column[place], tops[&(column[place], Item::Box(place))])).collect();
        let mut lanes: BTreeMap<(usize, bool), BTreeMap<usize, i32>> = BTreeMap::new();
        for ((column, item), top) in &tops {
            if let Item::Lane(from, forwards) = item {
                lanes.entry((*from, *forwards)).or_default().insert(*column, top + LANE / 2);
            }
        }
        Self { places, lanes }
    }
}

/// The column of each box: behind those that have lines to it, as far as that is possible.
fn columns(plan: &Plan) -> Vec<usize> {
    let count = plan.heights.len();
    let rank = ranks(plan);
    let mut column = vec![0; count];
    let mut sorted: Vec<usize> = (0..count).collect();
    sorted.sort_by_key(|place| rank[*place]);
    let linked: BTreeSet<usize> = plan.links.iter().flat_map(|(from, to)| [*from, *to]).collect();
    if plan.links.len() > 2 * count {
        // chains say nothing any more: columns of one height
        let total: i32 = plan.heights.iter().map(|height| height + GAP).sum();
        let columns = (2..).find(|columns| columns * columns * 330 >= total).unwrap_or(2);
        let mut above = 0;
        for place in sorted.iter().filter(|place| !plan.last.contains(place)) {
            column[*place] = usize::try_from((above * columns / total).min(columns - 1)).unwrap_or_default();
            above += plan.heights[*place] + GAP;
        }
    } else {
        // long chains are folded: nobody reads a picture that is much wider than high
        for place in &sorted {
            let before = plan.links.iter().filter(|(from, to)| to == place && rank[*from] < rank[*place]);
            column[*place] = before.map(|(from, _)| column[*from] + 1).max().unwrap_or_default().min(WIDEST);
        }
    }
    for place in sorted.iter().filter(|place| plan.first.contains(place)) {
        column[*place] = 0;
    }
    let mut last = column.iter().max().copied().unwrap_or_default();
    // what belongs to the right has a column of its own there
    let others = (0..count).filter(|place| !plan.last.contains(place));
    let behind = others.clone().map(|place| column[place]).max().unwrap_or_default();
    if !plan.last.is_empty() {
        last = behind + 1;
        plan.last.iter().for_each(|place| column[*place] = last);
    }
    let inner = if plan.last.is_empty() { last } else { behind };
    // boxes without lines fill what is empty
    let mut heights = vec![0; inner.max(1) + 1];
    let loose: Vec<usize> = others.clone().filter(|place| !linked.contains(place)).collect();
    for place in others.filter(|place| linked.contains(place)) {
        heights[column[place]] += plan.heights[place] + GAP;
    }
    if linked.is_empty() {
        let columns = (1..6_usize).find(|columns| columns * columns * 3 >= loose.len()).unwrap_or(5);
        heights = vec![0; columns];
    }
    for place in loose {
        let least = (0..heights.len()).min_by_key(|column| heights[*column]).unwrap_or_default();
        column[place] = least;
        heights[least] += plan.heights[place] + GAP;
    }
    // no column stays empty
    let used: BTreeSet<usize> = column.iter().copied().collect();
    column.iter().map(|own| used.range(..own).count()).collect()
}

/// An order of the boxes in which as few lines as possible lead back: sources first, sinks last, of the rest the one that
/// has the most lines more to others than from them (Eades, Lin and Smyth 1993).
fn ranks(plan: &Plan) -> Vec<usize> {
    let mut left: BTreeSet<usize> = (0..plan.heights.len()).collect();
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    let out = |left: &BTreeSet<usize>, place: usize| {
        plan.links.iter().filter(|(from, to)| *from == place && to != from && left.contains(to)).count()
    };
    let into = |left: &BTreeSet<usize>, place: usize| {
        plan.links.iter().filter(|(from, to)| *to == place && to != from && left.contains(from)).count()
    };
    while !left.is_empty() {
        if let Some(sink) = left.iter().copied().find(|place| out(&left, *place) == 0) {
            left.remove(&sink);
            tail.push(sink);
            continue;
        }
        let best = left.iter().copied().max_by_key(|place| {
            let (out, into) = (out(&left, *place), into(&left, *place));
            // a source before all others; the first of equals
            (
                into == 0,
                i64::try_from(out).unwrap_or_default() - i64::try_from(into).unwrap_or_default(),
                usize::MAX - place,
            )
        });
        let Some(best) = best else { break };
        left.remove(&best);
        head.push(best);
    }
    let mut rank = vec![0; plan.heights.len()];
    for (order, place) in head.into_iter().chain(tail.into_iter().rev()).enumerate() {
        rank[place] = order;
    }
    rank
}

type Neighbours = BTreeMap<(usize, Item), Vec<(usize, Item)>>;

/// Which items of neighbouring columns have a part of a line between them.
fn neighbours(items: &[Vec<Item>], links: &BTreeSet<(usize, usize)>, column: &[usize]) -> Neighbours {
    let mut neighbours: Neighbours = BTreeMap::new();
    for (at, items) in items.iter().enumerate() {
        for item in items {
            neighbours.entry((at, *item)).or_default();
        }
    }
    for (from, to) in links {
        let (first, last) = (column[*from].min(column[*to]), column[*from].max(column[*to]));
        let item = |at: usize| match at {
            at if at == column[*from] => Item::Box(*from),
            at if at == column[*to] => Item::Box(*to),
            _ => Item::Lane(*from, column[*from] < column[*to]),
        };
        for at in first..last {
            let (one, other) = ((at, item(at)), (at + 1, item(at + 1)));
            neighbours.entry(one).or_default().push(other);
            neighbours.entry(other).or_default().push(one);
        }
    }
    neighbours
}

/// Items go where their neighbours are on average.
fn order(items: &mut [Vec<Item>], neighbours: &Neighbours) {
    for sweep in 0..SWEEPS {
        let mut columns: Vec<usize> = (0..items.len()).collect();
        if sweep % 2 == 1 {
            columns.reverse();
        }
        for at in columns {
            let place = |(column, item): &(usize, Item)| items[*column].iter().position(|other| other == item);
            let mut weighed: Vec<(i64, usize, Item)> = items[at]
                .iter()
                .enumerate()
                .map(|(own, item)| {
                    let places: Vec<i64> = neighbours[&(at, *item)]
                        .iter()
                        .filter_map(|other| {
                            Some(
                                (1000 * i64::try_from(place(other)?).ok()?)
                                    / i64::try_from(items[other.0].len()).ok()?,
                            )
                        })
                        .collect();
                    let mean = places.iter().sum::<i64>() / i64::try_from(places.len().max(1)).unwrap_or(1);
                    let stay =
                        1000 * i64::try_from(own).unwrap_or_default() / i64::try_from(items[at].len()).unwrap_or(1);
                    (if places.is_empty() { stay } else { mean }, own, *item)
                })
                .collect();
            weighed.sort();
            items[at] = weighed.into_iter().map(|(.., item)| item).collect();
        }
    }
}

/// Below each other, near their neighbours.
fn tops(plan: &Plan, items: &[Vec<Item>], neighbours: &Neighbours) -> BTreeMap<(usize, Item), i32> {
    let height = |item: Item| match item {
        Item::Box(place) => plan.heights[place],
        Item::Lane(..) => LANE,
    };
    let gap = |item: Item| if matches!(item, Item::Box(_)) { GAP } else { 4 };
    let mut tops: BTreeMap<(usize, Item), i32> = BTreeMap::new();
    let total = |items: &Vec<Item>| items.iter().map(|item| height(*item) + gap(*item)).sum::<i32>();
    let tallest = items.iter().map(total).max().unwrap_or_default();
    for (at, items) in items.iter().enumerate() {
        let mut y = (tallest - total(items)) / 2;
        for item in items {
            tops.insert((at, *item), y);
            y += height(*item) + gap(*item);
        }
    }
    for _ in 0..SWEEPS {
        for (at, items) in items.iter().enumerate() {
            let wanted: Vec<i32> = items
                .iter()
                .map(|item| {
                    let others = &neighbours[&(at, *item)];
                    let middles = others.iter().map(|other| tops[other] + height(other.1) / 2);
                    match i32::try_from(others.len()) {
                        Ok(count) if count > 0 => middles.sum::<i32>() / count - height(*item) / 2,
                        _ => tops[&(at, *item)],
                    }
                })
                .collect();
            // as far down as the room below allows, and no further up than the one above ends
            let mut below: i32 = items.iter().map(|item| height(*item) + gap(*item)).sum();
            let mut y = 0;
            for (item, wanted) in items.iter().zip(wanted) {
                let top = wanted.min(tallest - below).max(y);
                tops.insert((at, *item), top);
                below -= height(*item) + gap(*item);
                y = top + height(*item) + gap(*item);
            }
        }
    }
    tops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_a_column_have_places_of_their_own() {
        let links = [(0, 1), (1, 2), (2, 0), (0, 3), (3, 4), (1, 4), (4, 5), (0, 5), (6, 0)].into();
        let plan = Plan { heights: vec![50, 120, 30, 40, 200, 60, 80, 10], links, first: vec![6], last: vec![5] };
        let layout = Layout::new(&plan);
        for (one, (column, top)) in layout.places.iter().enumerate() {
            assert!(*top >= 0);
            for (other, (same, below)) in
                layout.places.iter().enumerate().skip(one + 1).filter(|(_, (c, _))| c == column)
            {
                let apart = top + plan.heights[one] <= *below || below + plan.heights[other] <= *top;
                assert!(apart, "{one} and {other} in column {same}: {layout:?}");
            }
        }
        assert_eq!(layout.places[6].0, 0);
        let last = layout.places.iter().map(|(column, _)| *column).max();
        assert_eq!(Some(layout.places[5].0), last);
        for (from, to) in &plan.links {
            let (from_column, to_column) = (layout.places[*from].0, layout.places[*to].0);
            let lanes = layout.lanes.get(&(*from, from_column < to_column));
            for between in from_column.min(to_column) + 1..from_column.max(to_column) {
                assert!(
                    lanes.is_some_and(|lanes| lanes.contains_key(&between)),
                    "{from} to {to} has no lane in {between}"
                );
            }
        }
    }
}
