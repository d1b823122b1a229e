//! Usage events as Parquet and back. Amounts are decimal texts, which no reader rounds; ids are UUIDs, times microseconds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use parquet::basic::Compression;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType, Int32Type,
    Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::text::Label;
use crate::usage::{
    Cost, ErrorMessage, EventId, Latency, Measures, Metadata, StatusCode, TokenClass, TokenSource, UsageEvent,
};
use crate::{Error, ErrorKind, Result, TenantId};

const SCHEMA: &str = "
    message usage_event {
        required binary tenant_id (utf8);
        required fixed_len_byte_array(16) id (uuid);
        required int64 timestamp (timestamp(micros,true));
        required binary event_type (utf8);
        required binary outcome (utf8);
        required int64 tokens_input;
        required int64 tokens_cache_read;
        required int64 tokens_cache_write;
        required int64 tokens_output;
        required int64 tokens_reasoning;
        required int64 tokens_audio_input;
        required int64 tokens_audio_cache_read;
        required int64 tokens_audio_output;
        required int64 tokens_unclassified;
        required boolean tokens_estimated;
        optional int64 latency_us;
        optional int32 status_code;
        optional binary cost_usd (utf8);
        optional binary model (utf8);
        optional binary provider (utf8);
        optional binary session_id (utf8);
        optional binary user_id (utf8);
        optional binary idempotency_key (utf8);
        optional binary measures (json);
        optional binary metadata (json);
        optional binary error_message (utf8);
        optional binary price_version (utf8);
    }";

/// Events as one Parquet file of one row group.
pub(super) fn encode(events: &[UsageEvent]) -> Result<Vec<u8>> {
    let schema = Arc::new(parse_message_type(SCHEMA).map_err(defective)?);
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer =
        SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).map_err(defective)?;
    write_columns(Columns { group: writer.next_row_group().map_err(defective)?, events })?;
    writer.into_inner().map_err(defective)
}

fn write_columns(mut columns: Columns<'_, '_>) -> Result<()> {
    columns.texts(|event| Some(event.tenant_id.as_str().to_owned()))?;
    columns.put::<FixedLenByteArrayType>(false, |event| {
        Some(FixedLenByteArray::from(event.id().as_uuid().as_bytes().to_vec()))
    })?;
    columns.put::<Int64Type>(false, |event| Some(event.occurred_at().timestamp_micros()))?;
    columns.texts(|event| Some(event.event_type.as_str().to_owned()))?;
    columns.texts(|event| Some(event.outcome.as_str().to_owned()))?;
    for class in TokenClass::ALL {
        columns.put::<Int64Type>(false, |event| i64::try_from(event.tokens.get(class)).ok())?;
    }
    columns.put::<BoolType>(false, |event| Some(event.tokens.source() == TokenSource::Estimated))?;
    columns.put::<Int64Type>(true, |event| i64::try_from(event.latency?.as_micros()).ok())?;
    columns.put::<Int32Type>(true, |event| Some(i32::from(event.status_code?.as_u16())))?;
    columns.optional_texts(|event| Some(event.cost?.as_decimal().to_string()))?;
    for label in LABELS {
        columns.optional_texts(|event| Some(label(event)?.as_str().to_owned()))?;
    }
    columns.optional_texts(|event| {
        let amounts = event.measures.iter().map(|(name, amount)| (name.as_str(), amount.to_string()));
        let amounts: serde_json::Map<_, _> =
            amounts.map(|(name, amount)| (name.to_owned(), amount.into())).collect();
        (!amounts.is_empty()).then(|| serde_json::Value::Object(amounts).to_string())
    })?;
    columns.optional_texts(|event| {
        Some(serde_json::Value::Object(event.metadata.as_map()?.clone()).to_string())
    })?;
    columns.optional_texts(|event| Some(event.error_message.as_ref()?.as_str().to_owned()))?;
    columns.optional_texts(|event| Some(event.price_version.as_ref()?.as_str().to_owned()))?;
    columns.group.close().map_err(defective)?;
    Ok(())
}

/// Where an event has a label.
type Place = fn(&mut UsageEvent) -> &mut Option<Label>;

const LABELS: [fn(&UsageEvent) -> Option<&Label>; 5] = [
    |event| event.model.as_ref(),
    |event| event.provider.as_ref(),
    |event| event.session_id.as_ref(),
    |event| event.user_id.as_ref(),
    |event| event.idempotency_key.as_ref(),
];

/// The columns of a row group, which are written in the order of the schema.
struct Columns<'a, 'w> {
    group: SerializedRowGroupWriter<'w, Vec<u8>>,
    events: &'a [UsageEvent],
}

impl Columns<'_, '_> {
    fn texts(&mut self, of: impl Fn(&UsageEvent) -> Option<String>) -> Result<()> {
        self.put::<ByteArrayType>(false, |event| of(event).map(|text| ByteArray::from(text.into_bytes())))
    }

    fn optional_texts(&mut self, of: impl Fn(&UsageEvent) -> Option<String>) -> Result<()> {
        self.put::<ByteArrayType>(true, |event| of(event).map(|text| ByteArray::from(text.into_bytes())))
    }

    fn put<T: DataType>(
        &mut self,
        is_optional: bool,
        of: impl Fn(&UsageEvent) -> Option<T::T>,
    ) -> Result<()> {
        let cells: Vec<Option<T::T>> = self.events.iter().map(of).collect();
        let levels: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
        let values: Vec<T::T> = cells.into_iter().flatten().collect();
        let column = self.group.next_column().map_err(defective)?;
        let mut column =
            column.ok_or_else(|| Error::new(ErrorKind::Misuse, "the schema has fewer columns"))?;
        let levels = is_optional.then_some(levels.as_slice());
        column.typed::<T>().write_batch(&values, levels, None).map_err(defective)?;
        column.close().map_err(defective)
    }
}

/// The events of a file whose checksum is known to be right.
pub(super) fn decode(file: Bytes) -> Result<Vec<UsageEvent>> {
    let reader = SerializedFileReader::new(file).map_err(misread)?;
    let mut events = Vec::new();
    for index in 0..reader.num_row_groups() {
        let group = reader.get_row_group(index).map_err(misread)?;
        let rows = usize::try_from(group.metadata().num_rows())
            .map_err(|_| Error::invalid("file", "has no rows"))?;
        let mut cells = Cells { group: &*group, column: 0, rows };
        events.append(&mut cells.events()?);
    }
    Ok(events)
}

/// The columns of a row group, which are read in the order of the schema.
struct Cells<'a> {
    group: &'a dyn RowGroupReader,
    column: usize,
    rows: usize,
}

impl Cells<'_> {
    fn events(&mut self) -> Result<Vec<UsageEvent>> {
        let tenants = self.required(Self::texts)?;
        let ids = self.required(Self::get::<FixedLenByteArrayType>)?;
        let times = self.required(Self::get::<Int64Type>)?;
        let types = self.required(Self::texts)?;
        let outcomes = self.required(Self::texts)?;
        let mut events = Vec::with_capacity(self.rows);
        for ((((tenant, id), time), of), outcome) in
            tenants.iter().zip(ids).zip(times).zip(&types).zip(&outcomes)
        {
            let id = Uuid::from_slice(id.data()).map_err(|_| Error::invalid("id", "is none"))?;
            let time = DateTime::from_timestamp_micros(time)
                .ok_or_else(|| Error::invalid("timestamp", "is none"))?;
            events.push(UsageEvent::from_stored(
                TenantId::new(tenant)?,
                EventId::from_uuid(id)?,
                of.parse()?,
                outcome.parse()?,
                time,
            )?);
        }
        for class in TokenClass::ALL {
            let counts = self.required(Self::get::<Int64Type>)?;
            for (event, count) in events.iter_mut().zip(counts) {
                event.tokens = event.tokens.with(class, count)?;
            }
        }
        let estimated = self.required(Self::get::<BoolType>)?;
        for (event, _) in events.iter_mut().zip(estimated).filter(|(_, estimated)| *estimated) {
            event.tokens = event.tokens.into_estimated();
        }
        self.details(&mut events)?;
        Ok(events)
    }

    /// The columns that may be empty.
    fn details(&mut self, events: &mut [UsageEvent]) -> Result<()> {
        let latencies = self.get::<Int64Type>()?;
        let codes = self.get::<Int32Type>()?;
        let costs = self.texts()?;
        for (((event, latency), code), cost) in events.iter_mut().zip(latencies).zip(codes).zip(costs) {
            let micros = latency
                .map(u64::try_from)
                .transpose()
                .map_err(|_| Error::invalid("latency", "is negative"))?;
            event.latency = micros.map(|micros| Latency::new(Duration::from_micros(micros))).transpose()?;
            let code =
                code.map(u16::try_from).transpose().map_err(|_| Error::invalid("status_code", "is none"))?;
            event.status_code = code.map(StatusCode::new).transpose()?;
            event.cost = cost.map(|cost| Cost::usd(amount(&cost)?)).transpose()?;
        }
        let places: [(&'static str, Place); 5] = [
            ("model", |event| &mut event.model),
            ("provider", |event| &mut event.provider),
            ("session_id", |event| &mut event.session_id),
            ("user_id", |event| &mut event.user_id),
            ("idempotency_key", |event| &mut event.idempotency_key),
        ];
        for (field, place) in places {
            for (event, text) in events.iter_mut().zip(self.texts()?) {
                *place(event) = text.map(|text| Label::new(field, text)).transpose()?;
            }
        }
        for (event, text) in events.iter_mut().zip(self.texts()?) {
            let amounts: std::collections::BTreeMap<String, String> =
                text.map(|text| json(&text)).transpose()?.unwrap_or_default();
            event.measures = amounts
                .into_iter()
                .try_fold(Measures::default(), |all, (name, text)| all.with(name, amount(&text)?))?;
        }
        for (event, text) in events.iter_mut().zip(self.texts()?) {
            let value: Option<serde_json::Value> = text.map(|text| json(&text)).transpose()?;
            event.metadata = value.map(Metadata::new).transpose()?.unwrap_or_default();
        }
        for (event, text) in events.iter_mut().zip(self.texts()?) {
            event.error_message = text.map(ErrorMessage::new);
        }
        for (event, text) in events.iter_mut().zip(self.texts()?) {
            event.price_version = text.map(|text| Label::new("price_version", text)).transpose()?;
        }
        Ok(())
    }

    fn required<T>(&mut self, get: impl FnOnce(&mut Self) -> Result<Vec<Option<T>>>) -> Result<Vec<T>> {
        let cells = get(self)?;
        cells
            .into_iter()
            .map(|cell| cell.ok_or_else(|| Error::invalid("file", "has an empty cell")))
            .collect()
    }

    fn texts(&mut self) -> Result<Vec<Option<String>>> {
        let text = |bytes: ByteArray| {
            String::from_utf8(bytes.data().to_vec())
                .map_err(|_| Error::invalid("file", "has a text that is none"))
        };
        self.get::<ByteArrayType>()?.into_iter().map(|cell| cell.map(text).transpose()).collect()
    }

    /// The cells of the next column.
    fn get<T: DataType>(&mut self) -> Result<Vec<Option<T::T>>> {
        let of = self.group.metadata().schema_descr().column(self.column);
        if of.physical_type() != T::get_physical_type() {
            return Err(Error::invalid("file", format!("its column {} has another type", of.name())));
        }
        let is_optional = of.max_def_level() > 0;
        let column = self.group.get_column_reader(self.column).map_err(misread)?;
        self.column += 1;
        let mut reader = get_typed_column_reader::<T>(column);
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let mut read = 0;
        while read < self.rows {
            let left = self.rows - read;
            let (records, _, _) =
                reader.read_records(left, Some(&mut levels), None, &mut values).map_err(misread)?;
            if records == 0 {
                return Err(Error::invalid("file", "has fewer rows than it says"));
            }
            read += records;
        }
        let mut values = values.into_iter();
        if !is_optional {
            return Ok(values.map(Some).collect());
        }
        Ok(levels.into_iter().map(|level| if level > 0 { values.next() } else { None }).collect())
    }
}

fn amount(text: &str) -> Result<Decimal> {
    text.parse().map_err(|_| Error::invalid("amount", format!("is none: {text:?}")))
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Error::invalid("file", "has JSON that is none").with_source(error))
}

fn defective(error: ParquetError) -> Error {
    Error::new(ErrorKind::Misuse, "events cannot be written as Parquet").with_source(error)
}

fn misread(error: ParquetError) -> Error {
    Error::invalid("file", "is no Parquet file of this crate").with_source(error)
}
