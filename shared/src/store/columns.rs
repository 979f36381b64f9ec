//! The parameters of a statement: columns that are handed over as arrays, a batch in one statement whose
//! text is the same for every size.
//!
//! [`arrays!`] makes of the names and types of a row's columns, each written once: the row, the arrays,
//! their values, and the list of which [`Parameters::unnest`] makes the text. So no name can come to
//! stand for another's array.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A type of Rust with the type of PostgreSQL that its values become.
pub(super) trait Element {
    /// PostgreSQL's name of it.
    const TYPE: &'static str;
}

impl Element for Uuid {
    const TYPE: &'static str = "uuid";
}

impl Element for String {
    const TYPE: &'static str = "text";
}

impl Element for bool {
    const TYPE: &'static str = "bool";
}

impl Element for DateTime<Utc> {
    const TYPE: &'static str = "timestamptz";
}

/// The name and PostgreSQL's type of a column.
pub(super) type Column = (&'static str, &'static str);

/// Defines a row and the arrays that hold the columns of many rows.
macro_rules! arrays {
    ($(#[$doc:meta])* $arrays:ident of $row:ident { $($column:ident: $type:ty),+ $(,)? }) => {
        /// A row of the arrays that are named alike.
        pub(super) struct $row {
            $(pub(super) $column: $type),+
        }

        $(#[$doc])*
        #[derive(Default)]
        pub(super) struct $arrays {
            $($column: Vec<$type>),+
        }

        impl $arrays {
            /// The columns, in the order of their values.
            pub(super) const COLUMNS: &[$crate::store::columns::Column] = &[
                $((stringify!($column), <$type as $crate::store::columns::Element>::TYPE)),+
            ];

            /// Adds a row.
            pub(super) fn push(&mut self, row: $row) {
                $(self.$column.push(row.$column);)+
            }

            /// The values, in the order of the columns, and others behind them.
            pub(super) fn values_with(self, others: Vec<sea_orm::Value>) -> Vec<sea_orm::Value> {
                let values = [$(sea_orm::Value::from(self.$column)),+];
                values.into_iter().chain(others).collect()
            }
        }
    };
}
pub(super) use arrays;

/// Gives the parameters of a statement their numbers, in the order in which their values are given.
#[derive(Default)]
pub(super) struct Parameters(usize);

impl Parameters {
    /// The next parameter.
    pub(super) fn next(&mut self) -> String {
        self.0 += 1;
        format!("${}", self.0)
    }

    /// The next parameters as the rows of a table with these columns.
    pub(super) fn unnest(&mut self, columns: &[Column], table: &str) -> String {
        let (arrays, names) = self.arrays(columns);
        format!("unnest({arrays}) AS {table} ({names})")
    }

    /// The same, with a last column `place` that counts the rows.
    pub(super) fn unnest_in_order(&mut self, columns: &[Column], table: &str) -> String {
        let (arrays, names) = self.arrays(columns);
        format!("unnest({arrays}) WITH ORDINALITY AS {table} ({names}, place)")
    }

    fn arrays(&mut self, columns: &[Column]) -> (String, String) {
        let arrays = columns.iter().map(|(_, of)| format!("{}::{of}[]", self.next()));
        let arrays = arrays.collect::<Vec<_>>().join(", ");
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        (arrays, names.join(", "))
    }
}

/// The columns of `tasks`, as they are read and written.
pub(super) const TASK_COLUMNS: [&str; 11] = [
    "id",
    "user_id",
    "title",
    "description",
    "status",
    "title_version",
    "description_version",
    "status_version",
    "deleted_at",
    "created_at",
    "updated_at",
];

/// The columns of `users`, as they are read and written.
pub(super) const PROFILE_COLUMNS: [&str; 10] = [
    "id",
    "role",
    "status",
    "preferences",
    "role_version",
    "status_version",
    "preferences_version",
    "erased_at",
    "created_at",
    "updated_at",
];

/// Columns of the table of this name.
pub(super) fn columns_of(table: &str, columns: &[&str]) -> String {
    let named = columns.iter().map(|column| format!("{table}.{column}"));
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_in_the_order_of_their_values() {
        let mut parameters = Parameters::default();
        let columns = [("id", Uuid::TYPE), ("title", String::TYPE)];
        let rows = parameters.unnest(&columns, "t");
        assert_eq!(rows, "unnest($1::uuid[], $2::text[]) AS t (id, title)");
        let rows = parameters.unnest_in_order(&columns[..1], "o");
        assert_eq!(rows, "unnest($3::uuid[]) WITH ORDINALITY AS o (id, place)");
        assert_eq!(parameters.next(), "$4");
    }
}
