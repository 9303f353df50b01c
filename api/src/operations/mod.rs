//! Operations: long-running work as a resource. Each shows a saga to the users who may watch or cancel it.
//!
//! A purge deletes the organization's sagas too. The user who requested the deletion can still read its certificate,
//! which is shown as a committed operation.

pub mod events;

use std::sync::Arc;

use atrium_shared::{
    db::{DbError, Principal},
    ids::{SagaId, UserId},
    messages::{DeletionCertificate, DeletionSearch, OperationFailure},
    organizations::{Certificate, OrganizationError},
    saga::{self, Operation, OperationStep, SagaKind, SagaStatus, StepStatus},
    tenancy::Role,
};
use http::StatusCode;

use crate::{
    http::{
        problem::{Code, Problem},
        request::Request,
        response::{Response, json},
        schema::{Component, component, event_component},
    },
    state::App,
};

/// `GET /v1/operations/{operation}`
///
/// # Errors
/// When the caller neither requested the operation nor is a member of its organization.
pub async fn get(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let id = request.path("operation")?;
    let user = request.signed_in_user()?.id;
    let operation = match app.database.operation_tx(user, id).await {
        Ok(mut tx) => saga::operation(&mut tx, id).await,
        Err(error) => Err(error),
    };
    let operation = match operation {
        // A completed deletion has purged its own saga.
        Err(DbError::NotFound) => certificate(app, user, id).await?.into_operation(id),
        operation => operation?,
    };
    json(StatusCode::OK, &operation)
}

/// `POST /v1/operations/{operation}/cancel`: the completed steps are compensated.
///
/// # Errors
/// When the caller is not an owner of its organization; [`Code::OperationNotCancelable`] when it can no longer be
/// canceled.
pub async fn cancel(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let id = request.path("operation")?;
    request.no_fields().await?;
    let user = request.signed_in_user()?.id;
    let org = match app.database.operation_tx(user, id).await {
        Ok(tx) => tx.org(),
        Err(DbError::NotFound) => {
            certificate(app, user, id).await?;
            return Err(not_cancelable());
        }
        Err(error) => return Err(error.into()),
    };
    let mut tx = match app.database.org_tx(&Principal::User(user), org).await {
        // The caller requested the operation but is not a member. An organization whose creation failed has no members,
        // so the caller may see the outcome. Only owners may cancel a running operation.
        Err(DbError::NotFound) => {
            let mut tx = app.database.operation_tx(user, id).await?;
            let operation = saga::operation(&mut tx, id).await?;
            return match operation.status {
                SagaStatus::Failed if operation.is_canceled() => json(StatusCode::ACCEPTED, &operation),
                SagaStatus::Failed => Err(not_cancelable()),
                _ => Err(OrganizationError::Forbidden { required: Role::Owner }.into()),
            };
        }
        tx => tx?,
    };
    tx.require(Role::Owner)?;
    if !saga::cancel(&mut tx, id).await? {
        return Err(not_cancelable());
    }
    let operation = saga::operation(&mut tx, id).await?;
    tx.commit().await?;
    json(StatusCode::ACCEPTED, &operation)
}

fn not_cancelable() -> Problem {
    Problem::new(
        Code::OperationNotCancelable,
        "The operation has ended, has passed the last step that can be undone, or is being undone already.",
    )
}

/// The certificate of a completed deletion that this user requested.
async fn certificate(app: &App, user: UserId, id: SagaId) -> Result<Certificate, DbError> {
    Certificate::read(&mut app.database.user_tx(user).await?, id).await
}

/// The response types of this module, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        component::<Operation>("Operation"),
        component::<OperationFailure>("OperationFailure"),
        component::<DeletionCertificate>("DeletionCertificate"),
        component::<DeletionSearch>("DeletionSearch"),
        component::<SagaKind>("OperationKind"),
        component::<SagaStatus>("OperationStatus"),
        component::<OperationStep>("OperationStep"),
        component::<StepStatus>("OperationStepStatus"),
        event_component::<events::StepEvent<'static>>("OperationStepEvent"),
        event_component::<events::FinishedEvent<'static>>("OperationFinishedEvent"),
    ]
}
