//! A matrix for a terminal.

use std::io::{self, Write};

use super::report::Report;
use crate::reach::group::Group;
use crate::reach::outcome::Glance;

/// Longer names are cut.
const NAME: usize = 60;

/// Writes a row for each group; what sends is on the left, what receives above.
pub(super) fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let sum = |count: fn(&Group) -> usize| report.groups.iter().map(count).sum::<usize>();
    let mut members = format!("{} pods", sum(|group| group.pods.len()));
    match sum(|group| group.host_endpoints.len()) {
        0 => {}
        1 => members += " and 1 host endpoint",
        hosts => members += &format!(" and {hosts} host endpoints"),
    }
    let port = report.port.as_deref().unwrap_or("any port");
    let count = report.groups.iter().filter(|group| !group.outside).count();
    writeln!(out, "{members} in {count} groups that policies treat alike; {port}")?;
    writeln!(
        out,
        "rows send, columns receive: + allowed, ~ partly, . denied, ' ' no common family"
    )?;
    writeln!(out)?;
    let columns = report.groups.len() + report.services.len();
    let width = columns.to_string().len();
    let names: Vec<String> = report.groups.iter().map(|group| cut(&group.name)).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(5);
    let header: Vec<_> = (1..=columns).map(|n| format!("{n:>width$}")).collect();
    let line =
        format!("{:>width$}  {:longest$}  {:>5}  {}", "#", "GROUP", "PODS", header.join(" "));
    writeln!(out, "{}", line.trim_end())?;
    let rows = report.groups.iter().zip(report.matrix.iter().zip(&report.service_matrix));
    for (n, (group, (row, services))) in rows.enumerate() {
        let cells = row.iter().chain(services);
        let signs: Vec<_> = cells.map(|cell| format!("{:>width$}", sign(report, *cell))).collect();
        let (name, count) = (names.get(n).map_or("", String::as_str), group.members().count());
        let line = format!("{:>width$}  {name:longest$}  {count:>5}  {}", n + 1, signs.join(" "));
        writeln!(out, "{}", line.trim_end())?;
    }
    for (n, service) in (report.groups.len() + 1..).zip(&report.services) {
        writeln!(out, "{n:>width$}  service {}", cut(service))?;
    }
    Ok(())
}

fn sign(report: &Report, cell: usize) -> char {
    match report.outcomes.get(cell).map(|cell| cell.verdict) {
        Some(Glance::Allowed) => '+',
        Some(Glance::Partly) => '~',
        Some(Glance::Denied) => '.',
        Some(Glance::Unreachable) | None => ' ',
    }
}

fn cut(name: &str) -> String {
    if name.chars().count() <= NAME {
        return name.to_owned();
    }
    name.chars().take(NAME - 1).chain(['…']).collect()
}
