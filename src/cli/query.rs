//! `forbear query`: read-only SQL on the ledger, for machines without `sqlite3`.

use std::io::{self, Write};
use std::process::ExitCode;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use serde_json::{Map, Value};

use super::control::Failure;
use super::status::{Cell, aligned, header};
use super::{EXIT_USAGE, QueryArgs, complain};
use crate::store::file::open_to_read;

/// What there is, if nobody asks for anything else.
const WHAT_THERE_IS: &str = "\
SELECT m.name AS name, group_concat(c.name, ', ') AS columns
FROM sqlite_schema m, pragma_table_info(m.name) c
WHERE m.type IN ('view', 'table') AND m.name NOT LIKE 'sqlite_%' GROUP BY m.name
ORDER BY m.type DESC, m.name";

/// Rows of a table that are laid out together; more come in further tables with the same columns.
const ROWS_TOGETHER: usize = 1000;

/// Asks and prints.
pub(super) fn query(args: &QueryArgs) -> ExitCode {
    match run(args, &mut anstream::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has had enough (`forbear query … | head`).
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            complain(&failure.to_string());
            let is_usage = matches!(&failure, Failure::No(why) if why.starts_with(SQL_TROUBLE));
            if is_usage { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

const SQL_TROUBLE: &str = "the query cannot be run";

fn run(args: &QueryArgs, out: &mut impl Write) -> Result<(), Failure> {
    let connection = open_to_read(&args.ledger.path()?).map_err(Failure::No)?;
    let sql = args.sql.as_deref().unwrap_or(WHAT_THERE_IS);
    print(&connection, sql, args, out)?;
    Ok(out.flush()?)
}

fn print(
    connection: &Connection,
    sql: &str,
    args: &QueryArgs,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let wrong = |error: rusqlite::Error| {
        Failure::No(format!(
            "{SQL_TROUBLE}: {error}. `forbear query` without SQL lists views, tables and columns"
        ))
    };
    let mut statement = connection.prepare(sql).map_err(wrong)?;
    if !statement.readonly() {
        return Err(Failure::No(format!("{SQL_TROUBLE}: it would change something")));
    }
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([]).map_err(wrong)?;
    if args.csv {
        let fields: Vec<String> = names.iter().map(|name| csv_field(name)).collect();
        write!(out, "{}\r\n", fields.join(","))?;
        while let Some(row) = rows.next().map_err(wrong)? {
            let fields: Vec<String> =
                cells(row, names.len()).map(|value| csv_field(&text(&value))).collect();
            write!(out, "{}\r\n", fields.join(","))?;
        }
    } else if args.json {
        let mut separator = "[";
        while let Some(row) = rows.next().map_err(wrong)? {
            let object: Map<String, Value> =
                names.iter().cloned().zip(cells(row, names.len())).collect();
            write!(out, "{separator}\n{}", Value::Object(object))?;
            separator = ",";
        }
        writeln!(out, "{}]", if separator == "[" { "[" } else { "\n" })?;
    } else {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut table = vec![header(&names)];
        while let Some(row) = rows.next().map_err(wrong)? {
            table.push(cells(row, names.len()).map(|value| Cell::plain(text(&value))).collect());
            if table.len() > ROWS_TOGETHER {
                write!(out, "{}", aligned(&table))?;
                table.truncate(1);
            }
        }
        write!(out, "{}", aligned(&table))?;
    }
    Ok(())
}

fn cells(row: &Row<'_>, count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(|at| match row.get_ref(at) {
        Ok(ValueRef::Integer(value)) => value.into(),
        Ok(ValueRef::Real(value)) => value.into(),
        Ok(ValueRef::Text(value)) => String::from_utf8_lossy(value).into_owned().into(),
        Ok(ValueRef::Blob(value)) => format!("{} bytes", value.len()).into(),
        Ok(ValueRef::Null) | Err(_) => Value::Null,
    })
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// RFC 4180: quoted where it must be.
fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
