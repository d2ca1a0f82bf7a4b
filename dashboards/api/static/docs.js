// Renders openapi.json without anything from another origin.
"use strict";
const make = (tag, text = "", ...children) => { const e = document.createElement(tag); e.textContent = text; e.append(...children); return e; };
const kind = schema => schema.$ref ? schema.$ref.split("/").pop() : schema.enum ? schema.enum.map(v => v === "" ? '""' : v).join(" | ")
  : schema.anyOf ? schema.anyOf.map(kind).join(" or ") : schema.type === "array" ? `list of ${kind(schema.items || {})}` : schema.type || "any";

function operation(path, method, found) {
  const table = make("table");
  for (const given of found.parameters || []) {
    const row = make("tr", "", make("td", "", make("code", given.name)), make("td", given.required ? "required" : kind(given.schema)),
                     make("td", given.description || given.schema.description || ""));
    table.append(row);
  }
  const answer = found.responses["200"]?.content?.["application/json"]?.schema;
  const details = make("details", "", make("summary", "", make("code", `${method.toUpperCase()} ${path}`)), make("p", found.description || ""), table);
  if (answer) details.append(make("p", `Answers: ${kind(answer)}`));
  return details;
}

fetch("/api/openapi.json").then(answer => answer.json()).then(api => {
  document.getElementById("about").textContent = api.info.description;
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, found] of Object.entries(methods)) document.getElementById("paths").append(operation(path, method, found));
  document.getElementById("paths").append(make("h2", "Shapes"));
  for (const [name, schema] of Object.entries(api.components?.schemas || {})) {
    const table = make("table");
    for (const [field, shape] of Object.entries(schema.properties || {}))
      table.append(make("tr", "", make("td", "", make("code", field)), make("td", kind(shape)), make("td", shape.description || "")));
    document.getElementById("paths").append(make("details", "", make("summary", "", make("code", name)), table));
  }
});
