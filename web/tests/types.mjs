/**
 * Writes web/types.d.ts from the schemas of docs/api/openapi.yaml. With --check it writes nothing, and fails when the
 * committed file is another.
 *
 * A schema becomes a type of the same name, as exact as TypeScript's checker can use: patterns, lengths and ranges are
 * left out. A schema without a type may be any value, so its type is unknown.
 */

import { readFile, writeFile } from "node:fs/promises";

import { parse } from "yaml";

const CONTRACT = new URL("../../docs/api/openapi.yaml", import.meta.url);
const TYPES = new URL("../types.d.ts", import.meta.url);
const HEAD = `/**
 * The schemas of docs/api/openapi.yaml, for the type checker. Generated: after a change of the contract, run
 * \`npm --prefix web run types\`. What only the page knows is in page.d.ts.
 */
`;

/** What stands in the contract's schemas. Another word is mostly half a description that YAML cut at a comma. */
const KEYWORDS = new Set([
  ..."$ref additionalProperties anyOf const default description enum examples format items maxItems maxLength".split(" "),
  ..."maxProperties maximum minItems minLength minProperties minimum oneOf pattern properties required type uniqueItems".split(" "),
]);

/** The types of JSON Schema whose name is another in TypeScript. @type {Record<string, string>} */
const NAMES = { integer: "number" };

const { schemas } = parse(await readFile(CONTRACT, "utf8")).components;
const text = HEAD + Object.entries(schemas).map(([name, schema]) => declaration(name, schema)).join("");
if (!process.argv.includes("--check")) {
  await writeFile(TYPES, text);
} else if ((await readFile(TYPES, "utf8")) !== text) {
  console.error("web/types.d.ts is not what docs/api/openapi.yaml says: run `npm --prefix web run types`.");
  process.exitCode = 1;
}

function declaration(name, schema) {
  return `\n${comment(schema, "")}export type ${name} = ${type(schema, "")};\n`;
}

/** The type of what `schema` allows, for a line that begins with `indent`. */
function type(schema, indent) {
  const unknown = Object.keys(schema).filter((keyword) => !KEYWORDS.has(keyword) && !keyword.startsWith("x-"));
  if (unknown.length > 0) throw new Error(`docs/api/openapi.yaml: not a keyword of a schema: ${unknown.join(", ")}`);
  if (schema.$ref !== undefined) return schema.$ref.replace("#/components/schemas/", "");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum !== undefined) return union(schema.enum.map((value) => JSON.stringify(value)));
  const either = schema.oneOf ?? schema.anyOf;
  if (either !== undefined) return union(either.map((one) => type(one, indent)));
  if (schema.type === undefined) return "unknown";
  return union([schema.type].flat().map((one) => ofType(one, schema, indent)));
}

function ofType(name, schema, indent) {
  if (name === "array") return `(${type(schema.items, indent)})[]`.replace(/^\((\w+)\)/, "$1");
  if (name === "object") return object(schema, indent);
  return NAMES[name] ?? name;
}

function object({ properties = {}, required = [], additionalProperties }, indent) {
  const fields = Object.entries(properties);
  // Other schemas' fields are not repeated by name, so they are of any type.
  if (fields.length === 0) {
    const values = typeof additionalProperties === "object" ? type(additionalProperties, indent) : "unknown";
    return `Record<string, ${additionalProperties === false ? "never" : values}>`;
  }
  const inner = `${indent}  `;
  const lines = fields.map(([name, schema]) => {
    const optional = required.includes(name) ? "" : "?";
    return `${comment(schema, inner)}${inner}${name}${optional}: ${type(schema, inner)};\n`;
  });
  return `{\n${lines.join("")}${indent}}`;
}

function union(types) {
  return [...new Set(types)].join(" | ");
}

function comment({ description }, indent) {
  return description === undefined ? "" : `${indent}/** ${description.trim().replaceAll("\n", `\n${indent} * `)} */\n`;
}
