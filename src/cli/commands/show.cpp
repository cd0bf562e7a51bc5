// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/changes.hpp"
#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/revision.hpp"
#include "cli/storage_report.hpp"
#include "cli/system.hpp"
#include "cli/text.hpp"

namespace coral::cli {
namespace {

// ---- a commit

void print_commit(Output& out, const Target& target, const std::vector<repo::Change>& changes) {
    const repo::Commit& commit = *target.object;
    out.print("{}\n", out.paint(Color::kYellow, "commit " + target.commit.hex()));
    out.print("Tree:   {}\n", commit.tree.hex());
    for (const CommitId& parent : commit.parents) out.print("Parent: {}\n", parent.hex());
    auto person = [&](const char* label, const repo::Person& who) {
        out.print("{} {} <{}>, {}\n", label, shown_text(who.name), shown_text(who.mail),
                  time_text(who.time_ns, who.zone_minutes));
    };
    person("Author:", commit.author);
    if (!(commit.committer == commit.author)) person("Commit:", commit.committer);
    for (const auto& [key, value] : commit.meta) out.print("Meta:   {} = {}\n", quote_name(key), first_line(value));
    out.write("\n");
    std::string message = shown_text(commit.message);
    for (std::size_t at = 0; at < message.size();) {
        std::size_t end = std::min(message.find('\n', at), message.size());
        std::string line = message.substr(at, end - at);
        out.print("{}{}\n", line.empty() ? "" : "    ", line);
        at = end + 1;
    }
    out.write("\n");
    print_changes(out, changes);
    out.print("\n{}\n", counts_text(count_changes(changes)));
}

Result<int> show_commit(Context& context, const Target& target) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    CORAL_TRY(auto changes, changes_of(*repository, *target.object));
    if (!context.json()) {
        print_commit(context.out, target, changes);
        return kOk;
    }
    Json document = json_document("show");
    document["kind"] = "commit";
    put_commit(document, target.commit, *target.object);
    JsonList list(context.out, std::move(document), "changes");
    for (const repo::Change& change : changes) list.add(json_of(change));
    return kOk;
}

// ---- a file

Json json_of_file(const std::string& path, const store::FileRecord& record, std::uint64_t stored) {
    Json document = json_document("show");
    document["kind"] = "file";
    put_text(document, "path", path);
    document["id"] = record.id.hex();
    document["size"] = record.size;
    document["stored_bytes"] = stored;
    document["parser"] = parser_text(record.parser);
    document["parser_version"] = record.parser_version;
    return document;
}

Result<int> show_file(Context& context, const std::string& path, const store::FileRecord& record) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    CORAL_TRY(std::uint64_t stored, repository->store().stored_bytes_of(record));
    Output& out = context.out;
    if (context.json()) {
        JsonList list(out, json_of_file(path, record, stored), "tensors");
        for (const store::TensorEntry& tensor : record.tensors) {
            Json element;
            put_text(element, "name", tensor.name);
            element["dtype"] = dtype_text(tensor.dtype);
            element["shape"] = tensor.shape;
            element["offset"] = tensor.offset;
            element["bytes"] = tensor.length;
            element["crc32"] = fmt::format("{:08x}", tensor.crc32);
            if (tensor.big_endian) element["big_endian"] = true;
            list.add(element);
        }
        return kOk;
    }
    out.print("{}\nSHA-256: {}\nSize:    {} bytes ({})\nStored:  {} bytes\nFormat:  {}\n",
              out.paint(Color::kYellow, quote_name(path)), record.id.hex(), record.size, size_text(record.size), stored,
              parser_text(record.parser));
    if (record.tensors.empty()) return kOk;
    out.print("\n{}:\n", count_text(record.tensors.size(), "tensor"));
    Table table({false, false, false, true});
    for (const store::TensorEntry& tensor : record.tensors) {
        table.row(
            {quote_name(tensor.name), dtype_text(tensor.dtype), shape_text(tensor.shape), size_text(tensor.length)});
    }
    out.write(table.text(4));
    return kOk;
}

Result<int> show_storage(Context& context, const std::string& path, const store::FileRecord& record) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    CORAL_TRY(auto parts, storage_of(*repository, record));
    if (!context.json()) {
        print_storage(context.out, parts, record.size);
        return kOk;
    }
    CORAL_TRY(std::uint64_t stored, repository->store().stored_bytes_of(record));
    JsonList list(context.out, json_of_file(path, record, stored), "parts");
    for (const PartStorage& part : parts) list.add(json_of(part));
    return kOk;
}

// ---- which of them

// A file of the mount, as it is now: its digest is an extended attribute once it is ingested.
Result<std::shared_ptr<const store::FileRecord>> working_file(Context& context, const std::string& path) {
    auto digest = get_xattr(path, "user.coral.digest");
    if (!digest || !*digest) return std::shared_ptr<const store::FileRecord>();
    CORAL_TRY(repo::Repository * repository, context.repository());
    auto id = FileId::from_hex(**digest);
    if (!id) return std::shared_ptr<const store::FileRecord>();
    return repository->store().file(*id);
}

// With --storage a PATH alone is understood, too: the file in the mount, else the branch's committed one.
Result<int> storage(Context& context, const std::string& operand) {
    if (operand.find(':') == std::string::npos) {
        CORAL_TRY(auto working, working_file(context, operand));
        if (working) return show_storage(context, operand, *working);
    }
    std::string name = operand;
    if (operand.find(':') == std::string::npos) {
        CORAL_TRY(const Place* place, context.place());
        CORAL_TRY(std::string path, path_in_branch(*place, operand));
        name = ":" + path;
    }
    CORAL_TRY(Target target, parse_target(context, name));
    CORAL_TRY(auto record, target_file(context, target));
    return show_storage(context, target.path, *record);
}

Result<int> run(Context& context) {
    const auto& operands = context.arguments.operands();
    if (context.arguments.has("storage")) {
        return operands.empty() ? context.usage("show: --storage needs REV:PATH or a PATH")
                                : storage(context, operands[0]);
    }
    Target target;
    if (operands.empty()) {
        CORAL_TRY(target, default_target(context));
    } else {
        CORAL_TRY(target, parse_target(context, operands[0]));
    }
    if (!target.has_path) return show_commit(context, target);
    CORAL_TRY(auto record, target_file(context, target));
    return show_file(context, target.path, *record);
}

}  // namespace

const Command& show_command() {
    static const Command command{
        "show",
        "History",
        "tell all about a commit or a file",
        "show [--json] [-b BRANCH] [REV]\nshow [--json] REV:PATH\nshow --storage [--json] (REV:PATH | PATH)",
        "Of a commit: author, message, metrics, and what changed against its first parent. Of a file:\n"
        "SHA-256, size, and the tensors found in it. With --storage how each tensor lies in the packs:\n"
        "modes of its chunks, base and depth, bytes, bits per weight.",
        "coral show main~1\n"
        "coral show v1.0:model.safetensors\n"
        "coral show --storage run1/model.safetensors",
        {{0, "storage", nullptr, "how a file is stored"}, kBranchOption, kJsonOption},
        0,
        1,
        run,
    };
    return command;
}

}  // namespace coral::cli
