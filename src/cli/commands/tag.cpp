// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/revision.hpp"
#include "cli/text.hpp"

namespace coral::cli {
namespace {

constexpr std::string_view kTags = "tags/";

Result<int> list(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    CORAL_TRY(auto refs, repository->refs(kTags));
    if (!context.json()) {
        for (const repo::Ref& ref : refs) context.out.print("{}\n", quote_name(ref.name.substr(kTags.size())));
        return kOk;
    }
    JsonList json(context.out, json_document("tag"), "tags");
    for (const repo::Ref& ref : refs) {
        Json element;
        put_text(element, "name", ref.name.substr(kTags.size()));
        CORAL_TRY(CommitId commit, peel(*repository, ref));
        element["commit"] = commit.hex();
        element["annotated"] = ref.annotated;
        if (ref.annotated) {
            CORAL_TRY(auto tag, repository->tag(TagId::from(ref.target)));
            element["tagger"] = json_of(tag->tagger);
            put_text(element, "message", tag->message);
        }
        json.add(element);
    }
    return kOk;
}

Result<int> remove(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    for (const std::string& name : context.arguments.operands()) {
        CORAL_TRY(auto ref, repository->ref(std::string(kTags) + name));
        if (!ref)
            return make_error(Errc::kNotFound,
                              fmt::format("{}: no such tag; `coral tag` lists them", quote_name(name)));
        repo::RefUpdate update;
        update.name = ref->name;
        update.expected = ref->target;
        update.reason = "tag: deleted";
        CORAL_CHECK(repository->update_refs({update}));
        if (!context.arguments.has("quiet")) {
            context.out.print("Deleted tag {} (it was {})\n", quote_name(name), ref->target.hex());
        }
    }
    return kOk;
}

Result<int> create(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    const Arguments& a = context.arguments;
    std::string name = a.operands()[0];
    if (!repo::valid_branch_name(name))
        return make_error(Errc::kInvalid, fmt::format("'{}': not a valid tag name", quote_name(name)));
    CommitId commit;
    if (a.operands().size() == 2) {
        CORAL_TRY(commit, repository->resolve(a.operands()[1]));
    } else {
        CORAL_TRY(commit, context.default_commit());
    }
    repo::RefUpdate update;
    update.name = std::string(kTags) + name;
    CORAL_TRY(auto before, repository->ref(update.name));
    if (before && !a.has("force")) {
        return make_error(Errc::kExists,
                          fmt::format("{}: a tag of this name exists already; move it with -f", quote_name(name)));
    }
    update.expected = before ? before->target : AnyId{};
    update.target = AnyId::from(commit);
    update.reason = fmt::format("tag: {}", name);
    CORAL_TRY(store::Session session, repository->store().session());  // from the object to its name
    if (a.has("message")) {
        repo::Tag tag;
        tag.target = commit;
        tag.name = name;
        tag.message = fmt::format("{}", fmt::join(a.values("message"), "\n\n"));
        CORAL_TRY(tag.tagger, repository->identity());
        CORAL_TRY(TagId id, repository->put_tag(tag));
        update.target = AnyId::from(id);
        update.annotated = true;
    }
    CORAL_CHECK(repository->update_refs({update}));
    return kOk;
}

Result<int> run(Context& context) {
    const Arguments& a = context.arguments;
    std::size_t count = a.operands().size();
    if (a.has("delete")) return count == 0 ? context.usage("tag: -d needs the name of a tag") : remove(context);
    if (count == 0) {
        return a.has("message") || a.has("force") ? context.usage("tag: needs the NAME of the new tag") : list(context);
    }
    if (count > 2 || a.has("list")) return context.usage("tag: takes NAME and at most one REV");
    return create(context);
}

}  // namespace

const Command& tag_command() {
    static const Command command{
        "tag",
        "Branches and tags",
        "list, make or delete tags",
        "tag [-l] [--json]\ntag [-f] [-m MESSAGE]… NAME [REV]\ntag -d NAME…",
        "Names a commit for good: in the mount it is tags/NAME. With -m the tag has an author, a date\n"
        "and a message of its own.",
        "coral tag v1.0\n"
        "coral tag -m \"best on the dev set\" best main~2",
        {{'l', "list", nullptr, "list tags, as without operands"},
         {'m', "message", "MESSAGE", "make an annotated tag; several are paragraphs"},
         {'f', "force", nullptr, "move a tag that exists"},
         {'d', "delete", nullptr, "delete"},
         kBranchOption,
         kQuietOption,
         kJsonOption},
        0,
        kAny,
        run,
    };
    return command;
}

}  // namespace coral::cli
