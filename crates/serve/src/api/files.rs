//! `/v1/files`, as OpenAI has it (<https://platform.openai.com/docs/api-reference/files>): files are sent as forms,
//! whose bytes go to disk as they come, and are listed, read and deleted. Knows how a form is read, not where files
//! lie.

use super::keeping::{Asked, FilesState, Id, Page, blocking, refusal};
use crate::batches::{FileObject, Purpose, StoreError, Upload};
use axum::{
    Json,
    body::Body,
    extract::{
        Multipart, State,
        multipart::{Field, MultipartError, MultipartRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use narthex_http::ApiError;
use serde_json::{Value, json};
use std::{fs::File, io::Read};

/// Bytes of a form besides those of its file: names, boundaries and short fields.
pub(crate) const FORM_BYTES: u64 = 64 << 10;

/// Bytes of a short field, and of a file's name.
const FIELD_BYTES_MAX: usize = 1024;

/// Bytes that are collected before they are written, and that are read at once.
const PIECE: usize = 256 << 10;

/// Files on a page, unless the client asks for fewer; also the most.
const PAGE_MAX: usize = 10_000;

/// Seconds that a file may ask to stay.
const EXPIRES_S_MIN: u64 = 60 * 60;
const EXPIRES_S_MAX: u64 = 30 * 24 * 60 * 60;

/// What OpenAI has and we have not.
const PURPOSES_ELSEWHERE: [&str; 4] = ["fine-tune", "evals", "assistants", "vision"];

/// What a form says of its file.
#[derive(Default)]
struct Form {
    purpose: Option<Purpose>,
    anchor: Option<String>,
    seconds: Option<u64>,
    file: Option<(Upload, String)>,
}

/// Takes a file.
pub(crate) async fn create(
    State(files): State<FilesState>,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Json<FileObject>, ApiError> {
    let store = files.clone().open()?;
    let form = form.map_err(|_| {
        let message = "a file is sent as a form: `Content-Type: multipart/form-data` with a boundary";
        ApiError::request(StatusCode::UNSUPPORTED_MEDIA_TYPE, message, Some("unsupported_media_type"))
    })?;
    // Where the client says beforehand that it is too much, nothing is read.
    let most = store.options().file_bytes_max;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most.saturating_add(FORM_BYTES)) {
        return Err(too_large(&files));
    }
    let Form { purpose, anchor, seconds, file } = read(&files, form).await?;
    let missing =
        |name: &str| ApiError::field(name, format!("the field `{name}` is missing")).code("missing_required_parameter");
    let purpose = purpose.ok_or_else(|| missing("purpose"))?;
    let expires_s = match (anchor, seconds) {
        (None, None) => (purpose == Purpose::Batch).then_some(EXPIRES_S_MAX),
        (Some(_), Some(seconds)) => Some(seconds),
        (None, _) => return Err(missing("expires_after[anchor]")),
        (_, None) => return Err(missing("expires_after[seconds]")),
    };
    let (upload, name) = file.ok_or_else(|| missing("file"))?;
    let kept = blocking(move || upload.keep(name, purpose, expires_s)).await?;
    kept.map(Json).map_err(|error| refusal(error, "file", ""))
}

async fn read(files: &FilesState, mut parts: Multipart) -> Result<Form, ApiError> {
    let wrong = |error: MultipartError| unreadable(files, &error);
    let mut form = Form::default();
    while let Some(mut part) = parts.next_field().await.map_err(wrong)? {
        let name = part.name().unwrap_or_default().to_string();
        let twice = || ApiError::field(&name, format!("the field `{name}` stands in the form twice"));
        match name.as_str() {
            "purpose" => {
                let purpose = purpose(&text(files, part, &name).await?)?;
                form.purpose.replace(purpose).map_or(Ok(()), |_| Err(twice()))?;
            }
            "expires_after[anchor]" => {
                let anchor = text(files, part, &name).await?;
                if anchor != "created_at" {
                    return Err(ApiError::field(&name, format!("`{name}` must be `created_at`")));
                }
                form.anchor.replace(anchor).map_or(Ok(()), |_| Err(twice()))?;
            }
            "expires_after[seconds]" => {
                let seconds = text(files, part, &name).await?.parse().ok();
                let seconds = seconds.filter(|seconds| (EXPIRES_S_MIN..=EXPIRES_S_MAX).contains(seconds));
                let Some(seconds) = seconds else {
                    let message = format!("`{name}` must be a whole number from {EXPIRES_S_MIN} to {EXPIRES_S_MAX}");
                    return Err(ApiError::field(&name, message));
                };
                form.seconds.replace(seconds).map_or(Ok(()), |_| Err(twice()))?;
            }
            "file" => {
                let Some(filename) = part.file_name().filter(|name| !name.is_empty()).map(str::to_string) else {
                    return Err(ApiError::field("file", "`file` must be a file with a name, not a text"));
                };
                if filename.len() > FIELD_BYTES_MAX {
                    let message = format!("the name of `file` must have at most {FIELD_BYTES_MAX} bytes");
                    return Err(ApiError::field("file", message));
                }
                if form.file.is_some() {
                    return Err(twice());
                }
                form.file = Some((receive(files, &mut part).await?, filename));
            }
            _ => {
                let name: String = name.chars().take(64).collect();
                return Err(ApiError::field(&name, format!("unknown field `{name}`")).code("unknown_parameter"));
            }
        }
    }
    Ok(form)
}

/// Writes a file's bytes as they come. If this is dropped in between, nothing of them stays.
async fn receive(files: &FilesState, part: &mut Field<'_>) -> Result<Upload, ApiError> {
    let refused = |error| refusal(error, "file", "");
    let mut upload = files.clone().with(|store| Upload::begin(store.clone())).await?.map_err(refused)?;
    let mut piece = Vec::new();
    loop {
        let chunk = part.chunk().await.map_err(|error| unreadable(files, &error))?;
        let last = chunk.is_none();
        piece.extend_from_slice(&chunk.unwrap_or_default());
        if piece.len() >= PIECE || (last && !piece.is_empty()) {
            let full = std::mem::take(&mut piece);
            let written = blocking(move || upload.write(&full).map(|()| upload)).await?;
            upload = written.map_err(refused)?;
        }
        if last {
            return Ok(upload);
        }
    }
}

/// A short field.
async fn text(files: &FilesState, mut part: Field<'_>, name: &str) -> Result<String, ApiError> {
    let mut text = vec![];
    while let Some(chunk) = part.chunk().await.map_err(|error| unreadable(files, &error))? {
        text.extend_from_slice(&chunk);
        if text.len() > FIELD_BYTES_MAX {
            return Err(ApiError::field(name, format!("`{name}` must have at most {FIELD_BYTES_MAX} bytes")));
        }
    }
    String::from_utf8(text).map_err(|_| ApiError::field(name, format!("`{name}` must be UTF-8")))
}

fn purpose(text: &str) -> Result<Purpose, ApiError> {
    match text {
        "batch" => Ok(Purpose::Batch),
        "user_data" => Ok(Purpose::UserData),
        known if PURPOSES_ELSEWHERE.contains(&known) => {
            let message = format!("this server keeps no files for `{known}`: `purpose` must be `batch` or `user_data`");
            Err(ApiError::field("purpose", message).code("unsupported_purpose"))
        }
        _ => Err(ApiError::field("purpose", "`purpose` must be `batch` or `user_data`").code("invalid_purpose")),
    }
}

fn unreadable(files: &FilesState, error: &MultipartError) -> ApiError {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(files),
        _ => ApiError::invalid(format!("cannot read the form: {}", error.body_text())),
    }
}

fn too_large(files: &FilesState) -> ApiError {
    match files.clone().open() {
        Ok(store) => refusal(StoreError::FileTooLarge(store.options().file_bytes_max), "file", ""),
        Err(error) => error,
    }
}

/// Lists files, the newest first.
pub(crate) async fn list(State(files): State<FilesState>, asked: Asked) -> Result<Json<Page<FileObject>>, ApiError> {
    let paging = asked.paging(PAGE_MAX, PAGE_MAX)?;
    let purpose = asked.get("purpose").map(str::to_string);
    let found = files.with(move |store| store.files(&paging, purpose.as_deref())).await?;
    let found = found.map_err(|error| refusal(error, "file", ""))?;
    Ok(Json(Page::new(found, |file| &file.id)))
}

/// Shows a file.
pub(crate) async fn get(State(files): State<FilesState>, Id(id): Id) -> Result<Json<FileObject>, ApiError> {
    let asked = id.clone();
    let found = files.with(move |store| store.file(&asked)).await?;
    found.map(Json).map_err(|error| refusal(error, "file", &id))
}

/// Deletes a file.
pub(crate) async fn delete(State(files): State<FilesState>, Id(id): Id) -> Result<Json<Value>, ApiError> {
    let asked = id.clone();
    let done = files.with(move |store| store.delete_file(&asked)).await?;
    done.map_err(|error| refusal(error, "file", &id))?;
    Ok(Json(json!({"id": id, "object": "file", "deleted": true})))
}

/// Gives a file's bytes, piece by piece.
pub(crate) async fn content(State(files): State<FilesState>, Id(id): Id) -> Result<Response, ApiError> {
    let asked = id.clone();
    let found = files.with(move |store| store.open_file(&asked)).await?;
    let (file, data) = found.map_err(|error| refusal(error, "file", &id))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_string()),
        (header::CONTENT_LENGTH, file.bytes.to_string()),
        // Whatever somebody sent, no browser shows it as a page of ours.
        (header::CONTENT_DISPOSITION, "attachment".to_string()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_string()),
    ];
    let pieces = stream::unfold(Some(data), |data| async move {
        let mut data: File = data?;
        let piece = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::new();
            let read = (&mut data).take(PIECE as u64).read_to_end(&mut piece);
            read.map(|_| (piece, data))
        });
        match piece.await.map_err(std::io::Error::other).flatten() {
            Ok((piece, _)) if piece.is_empty() => None,
            Ok((piece, data)) => Some((Ok(piece), Some(data))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok((headers, Body::from_stream(pieces)).into_response())
}

#[cfg(test)]
mod tests;
