//! The view of images that docker 29 shows on a terminal: names, disk usage, use.

use mica_api::ImageSummary;
use unicode_width::UnicodeWidthStr;

use crate::format::units;

const LEGEND: &str = "U  In Use";
const COLUMNS: usize = 7;

/// Renders all images, one line each. Sizes are flush right.
///
/// Layers are kept once and uncompressed, so an image's content is as big as what it takes on disk. Beyond docker's
/// columns: how much of it other images have too, and how much goes with this one.
pub(crate) fn render(images: &[ImageSummary]) -> String {
    let mut rows: Vec<[String; COLUMNS]> =
        vec![["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "SHARED", "UNIQUE", "EXTRA"].map(str::to_owned)];
    rows.extend(images.iter().map(|image| {
        let size = units::size3(image.size_bytes);
        let part = |bytes: Option<u64>| bytes.map(units::size3).unwrap_or_default();
        let (shared, unique) = (part(image.shared_bytes), part(image.unique_bytes));
        let in_use = if image.containers > 0 { "U" } else { "" };
        [name(image), image.id.short().to_owned(), size.clone(), size, shared, unique, in_use.to_owned()]
    }));
    let widths: Vec<usize> = (0..COLUMNS)
        .map(|column| rows.iter().map(|row| row[column].width()).max().unwrap_or_default())
        .collect();
    let total: usize = widths.iter().sum::<usize>() + 3 * (COLUMNS - 1);
    let mut text = format!("{LEGEND:>total$}\n");
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| {
                let fill = " ".repeat(widths[column] - cell.width());
                if matches!(column, 2..=5) { fill + cell } else { cell.clone() + &fill }
            })
            .collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

fn name(image: &ImageSummary) -> String {
    match (&image.repository, &image.tag) {
        (Some(repository), Some(tag)) => format!("{repository}:{tag}"),
        (Some(repository), None) => format!("{repository}@{}", image.digest),
        _ => "<untagged>".to_owned(),
    }
}
