/**
 * The types that only the page knows, beside those of the contract in types.d.ts.
 */

import type { Me, Problem, ProblemCode } from "./types";

/** One page of a list. */
export interface Page<T> {
  items: T[];
  next_cursor: string | null;
}

/** A problem document, or what stands for one where no answer of Atrium came. */
export type Failure = Omit<Problem, "code"> & { code: ProblemCode | "unknown" | "unreachable" };

/** The part of JSON Schema that the catalog of keys uses. */
export interface ValueSchema {
  type?: string | string[];
  enum?: unknown[];
  minimum?: number;
  maximum?: number;
  minItems?: number;
  items?: ValueSchema;
}

/** What a view is given: where to draw, what the address says, and a signal that ends with the view. */
export interface ViewContext {
  root: HTMLElement;
  params: Record<string, string>;
  signal: AbortSignal;
  me: Me;
  /** Draws the view anew: what it was drawn from has changed. */
  again: () => void;
  /** Ends the view: what it showed is gone, or this guest lost access to it. */
  end: (title: string, text: string) => void;
}

export type View = (context: ViewContext) => Promise<void>;
