#include "reward_service/math/labels.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "reward_service/math/evaluate.h"

namespace e3::math {
namespace {

bool IsConstant(const Node& node) {
  return IsScalar(node) && Variables(node).empty() && !HasApply(node);
}

// What a value may be said of: m + n, sin A, AB/CD, |z|, P(3), dy/dx. Not an equation to be solved:
// 2x = 17, x² = 17.
bool NamesValue(const Node& left) {
  if (!IsScalar(left)) {  // P(X > 2)
    return left.kind == Kind::kProduct && left.args.back()->kind == Kind::kRelation;
  }
  if (HasApply(left)) return true;
  const std::vector<std::string> names = Variables(left);
  if (names.size() >= 2) return true;
  if (names.empty()) return false;
  if (left.kind == Kind::kFunction || left.kind == Kind::kMeasure) return true;
  return left.kind == Kind::kProduct && left.args.size() == 2 &&
         left.args[0]->kind == Kind::kVariable && left.args[1]->kind == Kind::kNumber;  // P(3)
}

// P(x): a product only in form.
bool IsFunctionName(const Node& node) {
  return node.args.size() == 2 && node.args[0]->kind == Kind::kVariable &&
         node.args[1]->kind == Kind::kVariable &&
         absl::ascii_isupper(static_cast<unsigned char>(node.args[0]->name[0])) &&
         absl::ascii_islower(static_cast<unsigned char>(node.args[1]->name[0]));
}

std::string LabelName(const Node& node) {
  std::string name = node.name;
  for (const Node* arg : node.args) absl::StrAppend(&name, " ", LabelName(*arg));
  return name;
}

// dy/dx
bool IsDerivative(const Node& node) {
  return node.kind == Kind::kQuotient && node.args[0]->kind == Kind::kProduct &&
         node.args[1]->kind == Kind::kProduct && node.args[0]->args[0]->kind == Kind::kVariable &&
         node.args[0]->args[0]->name == "d" && node.args[1]->args[0]->kind == Kind::kVariable &&
         node.args[1]->args[0]->name == "d";
}

}  // namespace

bool IsEquation(const Node& node) {
  return node.kind == Kind::kRelation &&
         std::all_of(node.relations.begin(), node.relations.end(),
                     [](Relation r) { return r == Relation::kEqual || r == Relation::kApprox; });
}

bool IsInequality(const Node& node) {
  return node.kind == Kind::kRelation &&
         std::all_of(node.relations.begin(), node.relations.end(),
                     [](Relation r) { return r != Relation::kEqual && r != Relation::kApprox; });
}

bool IsLabel(const Node& node) {
  switch (node.kind) {
    case Kind::kVariable:
    case Kind::kText:
    case Kind::kE:
      return true;
    case Kind::kApply:
      return std::all_of(node.args.begin(), node.args.end(),
                         [](const Node* a) { return IsScalar(*a); });
    case Kind::kSequence:
    case Kind::kList:
      return std::all_of(node.args.begin(), node.args.end(),
                         [](const Node* a) { return a->kind == Kind::kVariable; });
    case Kind::kProduct:  // AB, P(x), m∠A
      return std::all_of(node.args.begin(), node.args.end(),
                         [](const Node* a) { return IsLabel(*a); });
    case Kind::kMeasure:
      return IsLabel(*node.args[0]);
    default:
      return false;
  }
}

Labelled Unlabel(const Node& node) {
  Labelled result;
  if (!IsEquation(node)) {
    result.values = {&node};
    return result;
  }
  const Node& left = *node.args[0];
  if (IsLabel(left)) {
    bool recursive = false;
    for (size_t i = 1; i < node.args.size(); ++i) {
      for (const std::string& name : Variables(*node.args[i])) {
        recursive = recursive || (left.kind == Kind::kVariable && name == left.name);
      }
    }
    if (!recursive &&
        !(left.kind == Kind::kProduct && !IsConstant(*node.args[1]) && !IsFunctionName(left))) {
      result.label = LabelName(left);
      result.function = left.kind == Kind::kApply ||
                        (left.kind == Kind::kVariable && left.name == "y") ||
                        left.kind == Kind::kProduct;
      result.values.assign(node.args.begin() + 1, node.args.end());
      // y = (x+1)² = x² + 2x + 1, A = πr² = 9π: the last is the answer.
      if (result.values.size() > 1 && !std::all_of(result.values.begin(), result.values.end(),
                                                   [](const Node* n) { return IsConstant(*n); }))
        result.values = {result.values.back()};
      return result;
    }
  }
  if (NamesValue(left) && (IsConstant(*node.args.back()) || IsDerivative(left))) {
    result.label = absl::StrCat("= ", node.args.size());  // a value of something
    result.loose = true;
    result.values = {node.args.back()};
    return result;
  }
  if (node.args.size() == 2 && IsConstant(left) && IsLabel(*node.args[1]) &&
      node.args[1]->kind != Kind::kProduct) {
    result.label = LabelName(*node.args[1]);
    result.values = {&left};
    return result;
  }
  if (std::all_of(node.args.begin(), node.args.end(),
                  [](const Node* n) { return IsConstant(*n); })) {
    result.values = node.args;
    return result;
  }
  result.values = {&node};
  return result;
}

}  // namespace e3::math
