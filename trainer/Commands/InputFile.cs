using System.Text.Json;
using Rlhf.Trainer.Models;
using static TorchSharp.torch;

namespace Rlhf.Trainer.Commands;

/// <summary>The token file of the commands: <c>{"input_ids": [[..]], "attention_mask": [[..]]}</c>, the mask optional.</summary>
internal sealed class InputFile
{
    private readonly string file;
    private readonly int[][]? mask;

    private InputFile(string file, int[][] inputIds, int[][]? mask)
    {
        this.file = file;
        this.mask = mask;
        InputIds = inputIds;
    }

    public int[][] InputIds { get; }

    public bool HasMask => mask is not null;

    public static InputFile Read(FileInfo input, ModelConfig config)
    {
        string file = input.FullName;
        if (!input.Exists) throw new CommandException($"{file}: no such file.");
        try
        {
            using JsonDocument json = JsonDocument.Parse(File.ReadAllBytes(file));
            if (json.RootElement.ValueKind != JsonValueKind.Object || !json.RootElement.TryGetProperty("input_ids", out JsonElement ids))
                throw new CommandException($"{file}: an object with 'input_ids' is expected.");
            int[][] inputIds = Matrix(ids, "input_ids", file);
            int[][]? mask = json.RootElement.TryGetProperty("attention_mask", out JsonElement given)
                && given.ValueKind != JsonValueKind.Null
                ? Matrix(given, "attention_mask", file)
                : null;
            Check(inputIds, mask, config, file);
            return new InputFile(file, inputIds, mask);
        }
        catch (JsonException e)
        {
            throw new CommandException($"{file}: not valid JSON: {e.Message}");
        }
    }

    /// <summary>The rows as tensors (B, T); a mask of ones becomes null.</summary>
    public (Tensor Ids, Tensor? Mask) Tensors()
    {
        int rows = InputIds.Length, length = InputIds[0].Length;
        int uneven = Array.FindIndex(InputIds, r => r.Length != length);
        if (uneven >= 0)
        {
            throw new CommandException(
                $"{file}: input_ids[{uneven}] has {InputIds[uneven].Length} tokens, input_ids[0] has {length}; "
                + "pad the rows and give 'attention_mask'.");
        }

        Tensor ids = tensor([.. InputIds.SelectMany(r => r).Select(v => (long)v)], [rows, length]);
        bool padded = mask is not null && mask.Any(r => r.Contains(0));
        return (ids, padded ? tensor([.. mask!.SelectMany(r => r).Select(v => (long)v)], [rows, length]) : null);
    }

    /// <summary>The rows without their padding.</summary>
    public int[][] Unpadded() => mask is null ? InputIds : [.. InputIds.Zip(mask, (ids, m) => ids.Where((_, t) => m[t] == 1).ToArray())];

    /// <summary>The last real token of each row: by the mask, or before the trailing padding tokens.</summary>
    public long[] LastTokens(int? padId) => [.. InputIds.Select((ids, row) =>
    {
        int last = mask is not null ? Array.LastIndexOf(mask[row], 1) : Array.FindLastIndex(ids, id => id != padId);
        return last >= 0 ? (long)last : throw new CommandException($"{file}: row {row} holds nothing but padding.");
    })];

    private static void Check(int[][] ids, int[][]? mask, ModelConfig config, string file)
    {
        if (ids.Length == 0) throw new CommandException($"{file}: 'input_ids' has no rows.");
        for (int row = 0; row < ids.Length; row++)
        {
            if (ids[row].Length == 0) throw new CommandException($"{file}: input_ids[{row}] is empty.");
            if (ids[row].Length > config.MaxPositions)
                throw new CommandException(
                    $"{file}: input_ids[{row}] has {ids[row].Length} tokens; the model has {config.MaxPositions} positions.");
            int stranger = Array.FindIndex(ids[row], id => id < 0 || id >= config.VocabularySize);
            if (stranger >= 0)
            {
                throw new CommandException(
                    $"{file}: input_ids[{row}][{stranger}] is {ids[row][stranger]}; the vocabulary has {config.VocabularySize} tokens.");
            }

            if (mask is null) continue;
            if (mask.Length != ids.Length || mask[row].Length != ids[row].Length)
                throw new CommandException($"{file}: 'attention_mask' must have the shape of 'input_ids' (row {row} differs).");
            if (mask[row].Any(m => m is not (0 or 1))) throw new CommandException($"{file}: attention_mask[{row}] must hold 0 and 1 only.");
            if (!mask[row].Contains(1)) throw new CommandException($"{file}: row {row} holds nothing but padding.");
        }
    }

    private static int[][] Matrix(JsonElement json, string name, string file)
    {
        if (json.ValueKind != JsonValueKind.Array) throw Wrong();
        return [.. json.EnumerateArray().Select(Row)];

        int[] Row(JsonElement row) => row.ValueKind == JsonValueKind.Array ? [.. row.EnumerateArray().Select(Integer)] : throw Wrong();

        int Integer(JsonElement value) => value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int id) ? id : throw Wrong();

        CommandException Wrong() => new($"{file}: '{name}' must be an array of arrays of integers.");
    }
}
